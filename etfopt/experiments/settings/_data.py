"""The data of a run."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from etfopt.errors import InputError
from etfopt.experiments.settings._options import Frozen, Options
from etfopt.experiments.settings._section import Section, setting
from etfopt.experiments.settings.names import DATA, FOLDER, DataName, is_own, known_classes

MOST_SAMPLES = 10**9
"""Of the unconstrained-features model, each a row of parameters."""


class DataConfig(Section):
    """Which data, and what is done to them."""

    name: DataName = setting("digits", f"Data set: {DATA.listed}, or {FOLDER}PATH.", option=True)
    batches: Literal["shuffled", "stratified"] = setting(
        "shuffled",
        "Order of the training samples; stratified spreads every class evenly over the batches of an epoch.",
        option=True,
    )
    augmentation: Literal["none", "flip-crop", "affine-crop"] = setting(
        "none",
        "Random changes of every training image: flips and crops; or rotations, scales and shifts.",
        option=True,
    )
    subset: int | None = setting(None, "Training images kept of each class.", ge=1)
    test_subset: int | None = setting(None, "Test images kept of each class. Those of training are not touched.", ge=1)
    imbalance: Literal["none", "exp", "step"] = setting(
        "none",
        "exp: class c of C keeps the share ``imbalance_factor**(c/(C-1))`` of its images. step: the last half of the "
        "classes keeps ``imbalance_factor``.",
    )
    imbalance_factor: float = setting(1.0, "Share that the rarest class keeps; 0.01 is a long tail.", gt=0, le=1)
    label_noise: float = setting(
        0.0, "Share of the training labels that are replaced by another class, drawn uniformly.", ge=0, le=1
    )
    seed: int = setting(
        0,
        "Seeds the split of a single folder, the subsets, the imbalance and the label noise. It is not the run's "
        "seed: runs that differ in their seed alone see the same data.",
        ge=0,
        le=2**63 - 1,
    )
    size: int | None = setting(
        None,
        "Scale and crop image files to this height and width. With none, all must be square and of one size.",
        ge=1,
    )
    test_share: float = setting(0.2, "Share of every class held out as test split, if a folder has none.", gt=0, le=0.9)
    memory_gib: float = setting(8.0, "Refuse images that need more GiB of memory, unless there is a cache.", gt=0)
    cache: str | None = setting(
        None,
        "Folder for decoded image files, which later runs read; see "
        "`etfopt.experiments.data.cache`. It changes no result.",
        identity=False,
        min_length=1,
    )
    validation: float | None = setting(
        None,
        "Share of every class of the training split that takes the place of the test split, which is then not looked "
        "at: for choosing settings. It is held out after `subset`, and before `imbalance` and `label_noise`. 0.2 is a "
        "good value.",
        since="0.2",
        gt=0,
        le=0.9,
    )
    root: str = setting("data", "Folder of the data sets that torchvision reads.", min_length=1)
    download: bool = setting(False, "Whether torchvision may download what is missing there.")
    classes: int = setting(10, "C of the unconstrained-features model.", ge=2)
    samples: int = setting(100, "Samples of each class of the unconstrained-features model.", ge=1)
    options: Options = setting(Frozen(), "Keyword arguments of your own data set.", since="0.2")

    @model_validator(mode="after")
    def _go_together(self) -> DataConfig:
        if (self.imbalance == "none") != (self.imbalance_factor == 1):
            raise InputError(
                f"data.imbalance = {self.imbalance!r} and data.imbalance_factor = {self.imbalance_factor:g} do not go "
                "together; give both, as in imbalance = 'exp', imbalance_factor = 0.01, or neither"
            )
        if self.name == "ufm":
            self._check_free_features()
        if is_own(self.name) and (self.size is not None or self.test_share != 0.2):
            raise InputError("data.size and data.test_share are for image files; your own data must do this themselves")
        if self.options and not is_own(self.name):
            raise InputError(f"data.options are for data of one's own, named by import path; got {self.name!r}")
        return self

    def _check_free_features(self) -> None:
        if self.classes * self.samples > MOST_SAMPLES:
            raise InputError(
                f"data.classes = {self.classes} times data.samples = {self.samples} is more than {MOST_SAMPLES:,} "
                "free features; set one of them smaller"
            )
        if self.augmentation != "none":
            raise InputError(f"data.augmentation = {self.augmentation!r}: 'ufm' has no images; use 'none'")
        if self.test_subset is not None:
            raise InputError(f"data.test_subset = {self.test_subset}: 'ufm' has no test images; leave it out")
        if self.validation is not None:
            raise InputError(f"data.validation = {self.validation:g}: 'ufm' has no images to hold out; leave it out")

    @property
    def known_classes(self) -> int | None:
        """The number of classes, where it is known before any data are read."""
        return known_classes(self.name, self.classes)
