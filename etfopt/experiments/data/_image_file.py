"""One image file as 8-bit grey or colour: what Pillow would clip, drop or choose silently is mended or refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps

from etfopt.errors import InputError
from etfopt.files._text import open_regular

FORMATS = ("PNG", "JPEG", "MPO", "BMP", "DIB", "PPM", "TIFF", "WEBP", "GIF")
"""What the endings of `folder.SUFFIXES` stand for; others are not tried, since some start programs."""

GREY = ("1", "L", "LA", "La")
DEEP = ("I;16", "I;16L", "I;16B", "I;16N")
SCALED = ((np.arange(2**16) + 128) // 257).astype(np.uint8)
"""What becomes of each value of 16 bits."""
ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")


@dataclass(frozen=True)
class Picture:
    """An image, upright, in mode "L" or "RGB"; `deep` where the file has 16 bits a channel, of which 8 are left."""

    image: Image.Image
    deep: bool = False


def read_image(path: Path) -> Picture:
    """Return what an image file shows, or raise `InputError` with the remedy.

    16-bit values are scaled, 65535 to 255. The orientation that a camera wrote down is applied. Transparency is
    refused unless every pixel is opaque, since nothing says what is behind; so are animations and files of several
    pages, and 32-bit values, whose range is not known.
    """
    Image.init()  # for the list of formats; the first call is not one of several threads
    try:
        with open_regular(path) as file:
            formats = [name for name in FORMATS if name in Image.OPEN]
            with Image.open(file, formats=formats) as image:
                _require_one_small(image, path)
                if image.format == "PNG":
                    image.verify()  # the checksums, which decoding passes over
            file.seek(0)
            with Image.open(file, formats=formats) as image:
                deep = ";16" in repr(image.tile)  # how the decoder is told
                kind = image.format
                _require_whole(image, path)
                image.load()  # decodes, so that the file can be closed
                if kind != "TIFF":  # which is upright when it is decoded, and older versions of Pillow forget that
                    ImageOps.exif_transpose(image, in_place=True)
                _require_opaque(image, path)
                return _eight_bits(image, deep, kind, path)
    except InputError:
        raise
    except Exception as error:  # Pillow raises what its parsers happen to meet in a damaged file
        reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        raise InputError(f"{path}: is no image that can be read: {reason}") from error


def _require_one_small(image: Image.Image, path: Path) -> None:
    pixels, most = image.width * image.height, Image.MAX_IMAGE_PIXELS
    if most is not None and pixels > most:
        raise InputError(f"{path}: has {pixels:,} pixels; at most {most:,} are decoded: scale it down")
    # a telephone's JPEG has a second image for itself behind the photograph
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise InputError(f"{path}: holds several images; save the one that is meant in a file of its own")


def _require_whole(image: ImageFile.ImageFile, path: Path) -> None:
    """Refuse a TIFF whose strips leave out a part of it, which Pillow would fill with zeros."""
    covered = 0
    for tile in image.tile:
        left, upper, right, lower = tile[1] or (0, 0, *image.size)
        covered += (right - left) * (lower - upper)
    if image.format == "TIFF" and covered < image.width * image.height:
        raise InputError(f"{path}: is no image that can be read: a part of it is missing; save it again")


def _require_opaque(image: Image.Image, path: Path) -> None:
    if image.mode in ALPHA or "transparency" in image.info:
        if image.mode in GREY + ALPHA or image.mode in ("P", "RGB"):
            opaque = image.convert("RGBA").getchannel("A").getextrema()[0] == 255
        else:  # 16 bits: the value that stands for transparency
            opaque = not (np.asarray(image) == image.info["transparency"]).any()
        if not opaque:
            raise InputError(
                f"{path}: has transparent pixels, and what is behind them is not known; put it on a background: "
                "base = Image.new('RGBA', image.size, 'white'); base.alpha_composite(image.convert('RGBA')); "
                "base.convert('RGB').save(path)"
            )


def _eight_bits(image: Image.Image, deep: bool, kind: str | None, path: Path) -> Picture:
    if image.mode in DEEP or (image.mode == "I" and kind in ("PNG", "PPM")):  # whose integers have 16 bits at most
        return Picture(Image.fromarray(SCALED[np.asarray(image)]), deep=True)
    if image.mode in ("I", "F"):
        what = "32-bit integers" if image.mode == "I" else "floating-point numbers"
        raise InputError(f"{path}: holds {what}, whose range is not known; save it with 8 or 16 bits")
    if "transparency" in image.info and image.mode == "P":
        image = image.convert("RGBA")
    return Picture(image.convert("L" if image.mode in GREY else "RGB"), deep)
