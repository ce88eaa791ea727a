"""Augmentation of whole batches in tensor operations, on the device that holds them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["augmented"]

PADDING = 4
ANGLE, SCALE, SHIFT = math.radians(15), 0.1, 0.1
"""Largest rotation, relative change of size, and shift in image heights."""


def augmented(images: Tensor, kind: str, *key: int) -> Tensor:
    """Return a batch of standardised images, (n, channels, h, w), augmented."""
    if kind == "none":
        return images
    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(seed))
    return AUGMENTATIONS[kind](images, generator)


def _flip_crop(images: Tensor, generator: torch.Generator) -> Tensor:
    n, _, height, width = images.shape
    shift = torch.randint(0, 2 * PADDING + 1, (2, n, 1), generator=generator)
    mirrored = torch.rand(n, 1, generator=generator) < 0.5
    columns = torch.arange(width).expand(n, width)
    rows = (torch.arange(height) + shift[0]).to(images.device)
    columns = (torch.where(mirrored, columns.flip(1), columns) + shift[1]).to(images.device)
    padded = functional.pad(images, [PADDING] * 4)
    sample = torch.arange(n, device=images.device)[:, None, None]
    # the slice between indexed axes goes last
    return padded[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _affine(images: Tensor, generator: torch.Generator) -> Tensor:
    n = len(images)
    angle, size, *shift = (2 * torch.rand(4, n, generator=generator) - 1).unbind()
    cos, sin = (1 + SCALE * size) * torch.cos(ANGLE * angle), (1 + SCALE * size) * torch.sin(ANGLE * angle)
    # coordinates run from -1 to 1, so that a height is 2
    x, y = (2 * SHIFT * s for s in shift)
    maps = torch.stack([torch.stack([cos, -sin, x], dim=1), torch.stack([sin, cos, y], dim=1)], dim=1)
    grid = functional.affine_grid(maps.to(images), list(images.shape), align_corners=False)
    # what comes in from outside is the border, since zero is grey in a standardised image of a character
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "flip-crop": _flip_crop,
    "affine-crop": _affine,
}
