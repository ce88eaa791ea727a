"""What a session does to the network below the head, and what is measured of its classes."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn

from etfopt.errors import InputError
from etfopt.experiments.data.sessions import Session

OLD, NEW, OF_SESSION = "accuracy_old", "accuracy_new", "accuracy_session_"
"""Measures of the test split in a run of several sessions, by the session that brought the classes."""


def freeze(backbone: nn.Module, kind: str) -> None:
    """Leave out of training what a later session does not train; see ``sessions.backbone``."""
    if kind == "fine-tuned":
        return
    backbone.requires_grad_(False).eval()
    if kind == "last-layer":
        last_layer(backbone).requires_grad_(True)


def last_layer(backbone: nn.Module) -> nn.Linear:
    """Return the last linear layer of a network, or raise `InputError` if there is none."""
    layers = [module for module in backbone.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise InputError(
            "sessions.backbone = 'last-layer': the network has no linear layer; set backbone.dim, which puts one on "
            "top, or use 'fine-tuned' or 'frozen'"
        )
    return layers[-1]


def session_accuracies(session: Session, right: Tensor, counts: Tensor) -> dict[str, float]:
    """Return the accuracy on the classes of earlier sessions, of this one, and of each; NaN for those to come."""

    def share(first: int, end: int) -> float:
        number = int(counts[first:end].sum())
        return int(right[first:end].sum()) / number if number else math.nan

    parts = enumerate(pairwise((0, *session.ends)))
    return {
        OLD: share(0, session.old),
        NEW: share(session.old, session.classes),
        **{f"{OF_SESSION}{number}": share(*part) for number, part in parts},
    }
