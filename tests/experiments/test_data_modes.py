"""What an image file may hold: every mode of Pillow is read right or refused by name, and nothing is clipped."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from etfopt.errors import InputError
from etfopt.experiments.data import load_images
from etfopt.experiments.data._image_file import read_image
from etfopt.experiments.settings import DataConfig

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 6), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (5, 6, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 2**16, (5, 6), dtype=np.uint16)
DEEP[0, :4] = 0, 255, 256, 65535


def read(path: Path) -> np.ndarray:
    return np.asarray(read_image(path).image)


def png(path: Path, values: np.ndarray, kind: int, *chunks: tuple[bytes, bytes]) -> Path:
    """Write 16-bit values as a PNG of a kind of colour, 0 for grey, 2 for RGB, 4 and 6 with alpha: Pillow does not."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = values.astype(">u2").reshape(len(values), -1)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    return path


def eight(values: np.ndarray) -> np.ndarray:
    return np.rint(values / 257).astype(np.uint8)


def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path: Path):
    png(tmp_path / "x.png", DEEP, 0)
    Image.fromarray(DEEP).save(tmp_path / "x.tif")
    (tmp_path / "big.pgm").write_bytes(b"P5 6 5 65535\n" + DEEP.astype(">u2").tobytes())
    Image.frombytes("I;16B", (6, 5), DEEP.astype(">u2").tobytes()).save(tmp_path / "big.tif")
    for name in ("x.png", "x.tif", "big.pgm", "big.tif"):
        np.testing.assert_array_equal(read(tmp_path / name), eight(DEEP))


def test_16_bit_colour_keeps_the_upper_bits(tmp_path: Path):
    values = RNG.integers(0, 2**16, (5, 6, 3), dtype=np.uint16)
    values[0, 0] = 0, 65535, 257
    picture = read_image(png(tmp_path / "x.png", values, 2))
    assert picture.deep
    assert np.abs(np.asarray(picture.image).astype(int) - eight(values)).max() <= 1
    assert np.asarray(picture.image)[0, 0].tolist() == [0, 255, 1]
    opaque = np.concatenate([values, np.full((5, 6, 1), 65535)], axis=2)
    np.testing.assert_array_equal(read(png(tmp_path / "x.png", opaque, 6)), np.asarray(picture.image))


def folder(root: Path, array: np.ndarray) -> str:
    for i, label in enumerate("aabb"):
        (root / label).mkdir(parents=True, exist_ok=True)
        path = root / label / f"{i}.png"
        png(path, array, 0) if array.dtype == np.uint16 else Image.fromarray(array).save(path)
    return f"imagefolder:{root}"


@pytest.mark.parametrize("cached", [False, True])
def test_a_folder_of_16_bit_images_says_that_8_are_kept(tmp_path: Path, cached: bool):
    cache = str(tmp_path / "cache") if cached else None
    config = DataConfig(name=folder(tmp_path / "set", DEEP), test_share=0.5, cache=cache)
    with pytest.warns(UserWarning, match=r"\d.png: has 16 bits a channel, and 8 are kept: 65535 becomes 255"):
        images = load_images(config)
    assert images.shape == (1, 5, 6)
    np.testing.assert_array_equal(images.train.pixels[:][0, 0], eight(DEEP))


def test_16_bit_grey_in_a_set_in_colour_is_scaled_too(tmp_path: Path):
    name = folder(tmp_path, COLOUR)
    png(tmp_path / "a" / "9.png", DEEP, 0)
    images = load_images(DataConfig(name=name, test_share=0.2))
    found = [*images.train.pixels, *images.test.pixels]
    assert any(np.array_equal(x, np.stack([eight(DEEP)] * 3)) for x in found)


FORMATS = {
    **{"1": ["png"], "L": ["png", "bmp", "pgm"], "P": ["png", "gif"], "RGB": ["png", "ppm", "tif", "webp"]},
    **{"CMYK": ["tif", "jpg"], "YCbCr": ["jpg"]},
}


@pytest.mark.parametrize(("mode", "name"), [(mode, f"x.{end}") for mode, ends in FORMATS.items() for end in ends])
def test_what_has_8_bits_is_read_as_pillow_shows_it(tmp_path: Path, mode: str, name: str):
    image = Image.fromarray(GREY if mode in ("1", "L") else COLOUR).convert(mode)
    image.save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    with Image.open(tmp_path / name) as saved:
        shown = saved.convert("L" if mode in ("1", "L") else "RGB")
    np.testing.assert_array_equal(read(tmp_path / name), np.asarray(shown))
    if not name.endswith(("jpg", "gif")) and mode not in ("P", "YCbCr"):
        np.testing.assert_array_equal(read(tmp_path / name), np.asarray(image.convert(shown.mode)))


def with_alpha(mode: str, alpha: int) -> Image.Image:
    image = Image.fromarray(GREY if mode == "LA" else COLOUR).convert(mode)
    image.putalpha(Image.fromarray(np.where(GREY > 100, 255, alpha).astype(np.uint8)))
    return image


@pytest.mark.parametrize(("mode", "name"), [("LA", "x.png"), ("RGBA", "x.png"), ("RGBA", "x.tif"), ("RGBA", "x.webp")])
def test_alpha_is_passed_over_where_all_is_opaque_and_refused_where_it_is_not(tmp_path, mode: str, name: str):
    path = tmp_path / name
    with_alpha(mode, 255).save(path, **({"lossless": True} if name.endswith("webp") else {}))
    np.testing.assert_array_equal(read(path), GREY if mode == "LA" else COLOUR)
    for alpha in (0, 254):
        with_alpha(mode, alpha).save(path)
        with pytest.raises(InputError, match=r"has transparent pixels, and what is behind them is not known; put it"):
            read(path)


def test_a_transparent_colour_is_refused_where_it_is_used(tmp_path: Path):
    path = tmp_path / "x.png"
    palette = Image.fromarray(COLOUR).convert("P")
    unused = next(i for i in range(256) if i not in palette.tobytes())
    for image, used, free in (
        (palette, palette.getpixel((0, 0)), unused),
        (Image.fromarray(GREY // 2), int(GREY[0, 0]) // 2, 200),
        (Image.fromarray(COLOUR // 2), tuple((COLOUR[0, 0] // 2).tolist()), (200, 1, 2)),
    ):
        image.save(path, transparency=free)
        np.testing.assert_array_equal(read(path), np.asarray(image.convert("L" if image.mode == "L" else "RGB")))
        image.save(path, transparency=used)
        with pytest.raises(InputError, match="has transparent pixels"):
            read(path)
    np.testing.assert_array_equal(read(png(path, DEEP, 0, (b"tRNS", b"\x00\x07"))), eight(DEEP))
    with pytest.raises(InputError, match="has transparent pixels"):
        read(png(path, DEEP, 0, (b"tRNS", b"\x01\x00")))


def test_the_remedy_for_transparency_is_one(tmp_path: Path):
    path = tmp_path / "x.png"
    with_alpha("RGBA", 0).save(path)
    with pytest.raises(InputError) as caught:
        read(path)
    remedy = str(caught.value).partition("put it on a background: ")[2]
    with Image.open(path) as image:
        image.load()
    exec(remedy, {"Image": Image, "image": image, "path": path})
    assert read(path)[GREY <= 100].min() == 255


def test_values_without_a_known_range_are_refused(tmp_path: Path):
    Image.fromarray(DEEP.astype(np.int32) * 1000).save(tmp_path / "i.tif")
    Image.fromarray((DEEP / 65535).astype(np.float32)).save(tmp_path / "f.tif")
    for name, what in (("i.tif", "32-bit integers"), ("f.tif", "floating-point numbers")):
        with pytest.raises(InputError, match=rf"{name}: holds {what}, whose range is not known; save it with 8 or 16"):
            read(tmp_path / name)


@pytest.mark.parametrize("name", ["x.png", "x.gif", "x.tif", "x.webp"])
def test_an_animation_and_a_file_of_pages_are_refused(tmp_path: Path, name: str):
    frames = [Image.fromarray(np.roll(COLOUR, i, axis=0)) for i in range(3)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=rf"{name}: holds several images; save the one that is meant"):
        read(tmp_path / name)


def test_the_photograph_of_a_telephone_is_its_first_image(tmp_path: Path):
    first, second = (Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)) for value in (50, 200))
    first.save(tmp_path / "x.jpg", format="MPO", save_all=True, append_images=[second])
    assert np.abs(read(tmp_path / "x.jpg").astype(int) - 50).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.jpg"])
def test_an_image_is_shown_upright(tmp_path: Path, orientation: int, name: str):
    upright = np.zeros((16, 24, 3), dtype=np.uint8)
    upright[:8, :8] = 255  # the upper left corner
    mirrored, turns = orientation in (2, 4, 5, 7), {3: 2, 4: 2, 5: 1, 6: 1, 7: 3, 8: 3}.get(orientation, 0)
    stored = np.rot90(upright[:, ::-1] if mirrored else upright, turns)  # which the reader is to undo
    exif = Image.Exif()
    exif[0x0112] = orientation
    settings = {"exif": exif} if name != "x.tif" else {"tiffinfo": {274: orientation}}
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / name, **settings)
    found = read(tmp_path / name)
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).max() < 60


def test_too_many_pixels_are_refused_by_name(tmp_path: Path, monkeypatch):
    Image.fromarray(COLOUR).save(tmp_path / "x.png")
    for most in (29, 14):  # Pillow warns above its limit and fails above twice of it
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        with pytest.raises(InputError, match=r"x.png: .*30"):
            read(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    np.testing.assert_array_equal(read(tmp_path / "x.png"), COLOUR)


HEIGHT, WRONG = struct.pack("<HHII", 257, 4, 1, 5), struct.pack("<HHII", 257, 4, 1, 500)  # of a TIFF of five rows
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


def flipped(content: bytes) -> bytes:
    at = content.index(b"IDAT") + 30  # a pixel
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("x.png", flipped, ".*checksum"),
        ("x.png", lambda content: content[:50], ""),
        ("x.jpg", lambda content: content[:-60], ""),
        ("x.tif", lambda content: content.replace(HEIGHT, WRONG), "a part of it is missing"),
        ("x.png", lambda _: b"no image", "cannot identify"),
        ("x.png", lambda _: POSTSCRIPT, "cannot identify"),  # what starts a program is not tried
    ],
)
def test_a_damaged_image_is_refused_by_name(tmp_path: Path, name: str, damage, reason: str):
    path = tmp_path / name
    Image.fromarray(COLOUR).save(path, **({"compress_level": 0} if name == "x.png" else {}))
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert path.read_bytes() != content
    with pytest.raises(InputError, match=rf"{name}: is no image that can be read: {reason}"):
        read(path)
