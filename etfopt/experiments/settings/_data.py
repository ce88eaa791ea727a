"""The data of a run."""

from __future__ import annotations

from dataclasses import dataclass

from etfopt.errors import InputError
from etfopt.experiments.data.names import known_data
from etfopt.experiments.settings._fields import Section, choice, flag, integer, number, optional, setting, text

__all__ = ["DataConfig"]

MOST_SAMPLES = 10**9
"""Of the unconstrained-features model, each a row of parameters."""


@dataclass(frozen=True)
class DataConfig(Section):
    """Which data, and what is done to them.

    Attributes
    ----------
    name : str
        A name of `etfopt.experiments.data.names`, or ``imagefolder:PATH``.
    batches : "shuffled" or "stratified"
        Order of the training samples; "stratified" deals every class out evenly over the batches of an epoch.
    augmentation : "none", "flip-crop" or "affine-crop"
        See `etfopt.experiments.data.augment`.
    subset : int, optional
        Training images kept of each class.
    test_subset : int, optional
        Test images kept of each class; those of training are not touched.
    imbalance : "none", "exp" or "step"
        Class c of C keeps the share ``factor**(c/(C-1))`` of its images, or the last half of the classes keeps
        ``factor``.
    imbalance_factor : float
        Share that the rarest class keeps, in (0, 1].
    label_noise : float
        Share of the training labels that are replaced by another class, drawn uniformly.
    seed : int
        Seeds the split of a single folder, the subsets, the imbalance and the label noise. It is not the run's seed:
        runs that differ in their seed alone see the same data.
    size : int, optional
        Height and width that image files are scaled and cropped to; None requires them to be square and alike already.
    test_share : float
        Share of every class held out where a folder has no split of its own.
    memory_gib : float
        Images that need more memory than this are refused; with a cache none are.
    cache : str, optional
        Folder where decoded image files are kept, and mapped from by later runs; see
        `etfopt.experiments.data.cache`. Sets that are not image files are in memory in any case. It is no part of
        the digest: a run is the same with and without it.
    root : str
        Folder of the data sets that torchvision reads.
    download : bool
        Whether torchvision may download what is missing there.
    classes, samples : int
        Of the unconstrained-features model: C, and samples of each class.

    Raises
    ------
    InputError
        If a value is refused.
    """

    name: str = setting("digits", known_data)
    batches: str = setting("shuffled", choice("shuffled", "stratified"))
    augmentation: str = setting("none", choice("none", "flip-crop", "affine-crop"))
    subset: int | None = setting(None, optional(integer(1)))
    test_subset: int | None = setting(None, optional(integer(1)))
    imbalance: str = setting("none", choice("none", "exp", "step"))
    imbalance_factor: float = setting(1.0, number(most=1, above=0))
    label_noise: float = setting(0.0, number(0, 1))
    seed: int = setting(0, integer(0, 2**63 - 1))
    size: int | None = setting(None, optional(integer(1)))
    test_share: float = setting(0.2, number(most=0.9, above=0))
    memory_gib: float = setting(8.0, number(above=0))
    cache: str | None = setting(None, optional(text), identity=False)
    root: str = setting("data", text)
    download: bool = setting(False, flag)
    classes: int = setting(10, integer(2))
    samples: int = setting(100, integer(1))

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.imbalance == "none") != (self.imbalance_factor == 1):
            raise InputError(
                f"data.imbalance = {self.imbalance!r} and data.imbalance_factor = {self.imbalance_factor:g} do not go "
                "together; give both, as in imbalance = 'exp', imbalance_factor = 0.01, or neither"
            )
        if self.name == "ufm" and self.classes * self.samples > MOST_SAMPLES:
            raise InputError(
                f"data.classes = {self.classes} times data.samples = {self.samples} is more than {MOST_SAMPLES:,} "
                "free features; set one of them smaller"
            )
        if self.name == "ufm" and self.augmentation != "none":
            raise InputError(f"data.augmentation = {self.augmentation!r}: 'ufm' has no images; use 'none'")
        if self.name == "ufm" and self.test_subset is not None:
            raise InputError(f"data.test_subset = {self.test_subset}: 'ufm' has no test images; leave it out")
