"""A study: variants of one configuration, each with the same seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from etfopt.experiments.settings import TrainConfig

__all__ = ["Planned", "Study", "Variant"]


@dataclass(frozen=True)
class Variant:
    """One setting of a study.

    Attributes
    ----------
    name : str
        Its whole name: that of the file's variant and of its place in the grid.
    head : str
        The name of the file's variant alone; empty where the study has a grid only.
    cell : str
        Its place in the grid, as in "data.batches=stratified"; empty where there is no grid.
    config : TrainConfig
        Its configuration; the seed is set run by run.
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
        Its name.
    seed : int
        Of the run.
    config : TrainConfig
        With the seed.
    folder : str
        Name of the run's folder.
    """

    variant: str
    seed: int
    config: TrainConfig
    folder: str


@dataclass(frozen=True)
class Study:
    """What is compared and why.

    Attributes
    ----------
    name, title, question : str
        The name is that of the file.
    setup, findings : str
        How the study is made and what was left out, and what it found; both may be empty.
    seeds : tuple of int
    variants : tuple of Variant
        In the order of the file, those of one cell of the grid together.
    baselines : tuple of str
        What its report compares the others with, by names of variants of the file, of cells of the grid, or whole
        names; by default the first variant.
    """

    name: str
    title: str
    question: str
    setup: str
    findings: str
    seeds: tuple[int, ...]
    variants: tuple[Variant, ...]
    baselines: tuple[str, ...] = ()

    def runs(self) -> list[Planned]:
        """Return all runs; those of a seed together, so that a study that is stopped early compares all it can.

        Returns
        -------
        list of Planned
            Seed by seed.
        """
        return [
            Planned(v.name, seed, v.config.with_settings({"seed": seed}), f"{v.slug}-seed{seed}")
            for seed in self.seeds
            for v in self.variants
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the study as dictionaries, lists, strings and numbers, for `from_dict`.

        Returns
        -------
        dict
            For JSON.
        """
        variants = [{**asdict(v), "config": v.config.to_dict()} for v in self.variants]
        lists = {"seeds": list(self.seeds), "baselines": list(self.baselines)}
        return {**asdict(self), **lists, "variants": variants}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Study:
        """Return the study of a dictionary that `to_dict` gave.

        Parameters
        ----------
        values : mapping
            As `to_dict` gave it.

        Returns
        -------
        Study
            The same study.
        """
        variants = [Variant(**{**v, "config": TrainConfig.from_dict(v["config"])}) for v in values["variants"]]
        tuples = {"seeds": tuple(values["seeds"]), "baselines": tuple(values.get("baselines", ()))}
        return cls(**{**values, **tuples, "variants": tuple(variants)})
