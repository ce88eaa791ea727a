"""Numerical frames for more classes than twice the dimensions, where no closed form is known."""

from __future__ import annotations

import logging
import warnings
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from etfopt._scalars import as_integer
from etfopt.frames._closed import closed_form
from etfopt.frames._frame import PROVEN_GAP, Frame, FrameCertificate
from etfopt.frames._known import known_code
from etfopt.frames._regimes import regime
from etfopt.frames._store import Stored, cache_folder, load, store

if TYPE_CHECKING:
    from etfopt.frames._search import Progress, Search

__all__ = ["code"]

LOG = logging.getLogger(__name__)


def code(
    d: int,
    C: int,
    *,
    seed: int = 0,
    starts: int | None = None,
    cache: bool | str | PathLike[str] = True,
    progress: Progress | None = None,
) -> Frame:
    r"""Return C unit vectors in :math:`R^d` with a small largest cosine: a softmax code.

    For C > 2d no closed form is known. From several random starts, L-BFGS minimises the smooth maximum
    :math:`\frac1\beta \log \sum_{i<j} e^{\beta f_i'f_j}` while :math:`\beta` grows by factors of 4 to 16384. Newton's
    method then makes the largest cosines equal. The certificate has a rigorous lower bound on the largest cosine of any
    C vectors, by Delsarte's linear program in exact arithmetic. Small codes are the best known ones; a larger code may
    be a local optimum. For (21, 162) the search begins with an explicit construction. Other (d, C) have a closed form,
    which is returned: simplex, orthoplex or polygon.

    Parameters
    ----------
    d : int
        Number of features.
    C : int
        Number of vectors, at least 2.
    seed : int
        Seed of the random starts.
    starts : int, optional
        Most random starts. The default takes seconds: 64 for small codes, 1 for large ones. Take more where
        ``certificate.gap`` matters. A code that reaches the lower bound ends the search.
    cache : bool or path
        True keeps the result in the folder that the environment variable ``ETFOPT_CACHE`` names, by default
        ``~/.cache/etfopt``. A path names another folder. False neither reads nor writes a file. A code whose file is
        damaged or cannot be read is computed again, with a warning.
    progress : callable, optional
        Called after each iteration with an object that has the attributes start, starts, beta, cosine (of the present
        vectors) and best (so far). It may raise StopIteration to end the search.

    Returns
    -------
    Frame
        F of shape (d, C) with columns of norm :math:`1/\sqrt C`. ``certificate.proven`` is True where the largest
        cosine is within 1e-12 of the lower bound. A search that is interrupted, by Ctrl-C or by `progress`, warns,
        returns its best code, and keeps no file.

    Raises
    ------
    InputError
        If an argument is no such integer, d = 1 and C > 2, or `cache` names no folder.

    References
    ----------
    The bound: ``theory/delsarte.py``. Softmax codes: Jiang, Zhou, Aich, et al. (2023), Generalized neural collapse for
    a large number of classes, arXiv 2310.05351.

    Examples
    --------
    >>> import etfopt.frames
    >>> etfopt.frames.code(5, 16, cache=False)
    Frame('code', r=5, C=16, largest cosine 0.2, proven optimal)
    """
    d, C, best = regime(d, C)
    seed = as_integer(seed, "seed", at_least=0)
    starts = _default_starts(d, C) if starts is None else as_integer(starts, "starts", at_least=1)
    folder = cache_folder(cache)
    if (exact := closed_form(best, d, C)) is not None:
        return exact
    found = load(folder, d, C, seed, starts)
    if found is None:
        LOG.info("searching for %d vectors in %d dimensions, %d starts", C, d, starts)
        found, complete = _computed(d, C, seed, starts, progress)
        if complete:
            store(folder, found, seed, starts)
    proven = found.largest_cosine - found.lower_bound <= PROVEN_GAP
    certificate = FrameCertificate(found.largest_cosine, found.lower_bound, d, found.method, proven=proven)
    return Frame("code", found.vectors / np.sqrt(C), certificate)


def _default_starts(d: int, C: int) -> int:
    """Return a number of starts that takes seconds: 64 for small codes, one for large ones."""
    return int(np.clip(2e6 / (d * C**2), 1, 64))


def _computed(d: int, C: int, seed: int, starts: int, progress: Progress | None) -> tuple[Stored, bool]:
    """Search for a code, and tell whether the search came to its end."""
    # scipy.optimize takes long to import, and closed forms do not need it
    from etfopt.frames._delsarte import delsarte_bound
    from etfopt.frames._search import search

    bound = delsarte_bound(d, C)
    found = search(d, C, seed=seed, starts=starts, target=bound.value, known=known_code(d, C), progress=progress)
    if found.interrupted:
        _warn(found, d, C, starts)
    return Stored(found.vectors, found.largest_cosine, bound.value, bound.method), not found.interrupted


def _warn(found: Search, d: int, C: int, starts: int) -> None:
    warnings.warn(
        f"the search for C = {C} vectors in d = {d} dimensions was interrupted after {found.starts} of {starts} "
        f"starts. Its best code, with largest cosine {found.largest_cosine:.6g}, is returned and not cached",
        stacklevel=4,
    )
