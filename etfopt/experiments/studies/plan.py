"""A study: variants of one configuration, each with the same seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from etfopt.errors import InputError
from etfopt.experiments.settings import TrainConfig

__all__ = ["Planned", "Study", "Variant"]

LISTS = ("seeds", "baselines", "varied")
"""Fields of a study that are lists in JSON."""


@dataclass(frozen=True)
class Variant:
    """One setting of a study.

    Attributes
    ----------
    name : str
        Whole name: the file's variant and the place in the grid.
    head : str
        Name of the file's variant alone; empty if the study has only a grid.
    cell : str
        Place in the grid, such as "data.batches=stratified"; empty without a grid.
    config : TrainConfig
        Configuration; each run sets its own seed.
    """

    name: str
    head: str
    cell: str
    config: TrainConfig

    @property
    def slug(self) -> str:
        """The name as part of a folder's name."""
        return re.sub(r"[^\w.=+-]+", "-", self.name).strip("-.")


@dataclass(frozen=True)
class Planned:
    """One run of a study.

    Attributes
    ----------
    variant : str
        Name of its variant.
    seed : int
        Seed of the run.
    config : TrainConfig
        Configuration, with the seed.
    folder : str
        Name of the run's folder.
    """

    variant: str
    seed: int
    config: TrainConfig
    folder: str


@dataclass(frozen=True)
class Study:
    """A plan of runs to compare.

    Attributes
    ----------
    name, title, question : str
        The name is that of the file.
    setup, findings : str
        Design and omissions of the study, and its results; both may be empty.
    seeds : tuple of int
    variants : tuple of Variant
        Variants in the order of the file, those of one cell of the grid together.
    baselines : tuple of str
        Variants that the report compares the others with: names of variants of the file, of cells of the grid, or
        whole names. The default is the first variant.
    varied : tuple of str
        Settings that the grid varies.
    tuning : Study, optional
        Runs that choose some settings of every variant, with a validation split in place of the test split: the head
        of each of its variants is the name of one of this study's, and the cell is what is tried. None if nothing is
        to be chosen, or all is; see `etfopt.experiments.studies.tuning`.
    """

    name: str
    title: str
    question: str
    setup: str
    findings: str
    seeds: tuple[int, ...]
    variants: tuple[Variant, ...]
    baselines: tuple[str, ...] = ()
    varied: tuple[str, ...] = ()
    tuning: Study | None = None

    def runs(self) -> list[Planned]:
        """Return all runs; those of a seed together, so that a study that is stopped early compares all it can.

        Returns
        -------
        list of Planned
            Seed by seed.

        Raises
        ------
        InputError
            If settings are still to be tuned.
        """
        if self.tuning is not None:
            raise InputError(
                f"study {self.name!r}: its settings are still to be tuned; take the study that "
                "etfopt.experiments.studies.tuning.tune(study, folder) returns"
            )
        return [
            Planned(v.name, seed, v.config.with_settings({"seed": seed}), f"{v.slug}-seed{seed}")
            for seed in self.seeds
            for v in self.variants
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the study as dictionaries, lists, strings and numbers, for `from_dict`; `tuning` is left out.

        Returns
        -------
        dict
            A dictionary for JSON.
        """
        values = asdict(replace(self, tuning=None))
        del values["tuning"]
        variants = [{**asdict(v), "config": v.config.to_dict()} for v in self.variants]
        lists = {key: list(getattr(self, key)) for key in LISTS}
        return {**values, **lists, "variants": variants}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Study:
        """Return the study of a dictionary that `to_dict` gave.

        Parameters
        ----------
        values : mapping
            A dictionary from `to_dict`.

        Returns
        -------
        Study
            The same study.
        """
        variants = [Variant(**{**v, "config": TrainConfig.from_record(v["config"])}) for v in values["variants"]]
        tuples = {key: tuple(values[key] if key == "seeds" else values.get(key, ())) for key in LISTS}
        return cls(**{**values, **tuples, "variants": tuple(variants)})
