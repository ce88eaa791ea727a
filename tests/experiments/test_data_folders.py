"""What lies in a folder of images: all of them, nothing else, and nothing twice."""

import os
from pathlib import Path

import pytest
from PIL import Image

from etfopt.errors import InputError
from etfopt.experiments.data import load_images
from etfopt.experiments.settings import DataConfig


def picture(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), value).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two splits of two classes, with 3 and 2 images each, of values that tell them apart."""
    values = iter(range(100))
    for split, count in (("train", 3), ("test", 2)):
        for name in "ab":
            for i in range(count):
                picture(tmp_path / "set" / split / name / f"{i}.png", next(values))
    return tmp_path / "set"


def values(path: Path, **settings) -> list[list[int]]:
    """The value of every image of both splits, in order."""
    data = load_images(DataConfig(name=f"imagefolder:{path}", **settings))
    return [split.pixels[:, 0, 0, 0].tolist() for split in (data.train, data.test)]


def leave_behind(place: Path) -> None:
    """What systems and programs put beside images, some of it images by name or by content."""
    picture(place / ".ipynb_checkpoints" / "0-checkpoint.png", 200)
    picture(place / "__MACOSX" / "a" / "0.png", 201)
    picture(place / ".hidden.png", 202)
    (place / "._0.png").write_bytes(b"\x00\x05\x16\x07rubbish")
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "Icon\r"):
        (place / name).write_bytes(b"rubbish")


def test_what_systems_leave_behind_is_passed_over_at_every_level(folder: Path):
    before = values(folder)
    alone = values(folder / "train", test_share=0.3)
    for place in (folder, folder / "train", folder / "test", folder / "train" / "a", folder / "test" / "b"):
        leave_behind(place)
    assert values(folder) == before
    assert values(folder / "train", test_share=0.3) == alone  # nothing leaks into a share that is held out
    leave_behind(folder / "train" / "a" / "below")
    assert values(folder) == before


def test_a_class_of_hidden_files_alone_has_no_images(folder: Path):
    leave_behind(folder / "train" / "c")
    with pytest.raises(InputError, match=r"train/c: a class without images"):
        values(folder)


def test_endings_count_whatever_their_case_and_folders_below_a_class_belong_to_it(folder: Path):
    picture(folder / "train" / "a" / "x" / "y" / "3.PNG", 50)
    picture(folder / "train" / "a" / "4.JpEg", 51)
    picture(folder / "train" / "a" / "x.png" / "3.png", 60)  # a folder is no image
    Image.new("L", (4, 4), 52).save(folder / "train" / "b" / "5.PGM")
    assert values(folder)[0] == [0, 1, 2, 51, 50, 60, 3, 4, 5, 52]


def test_files_that_are_no_images_by_name_are_left_out_with_a_warning(folder: Path):
    before = values(folder)
    (folder / "README.txt").write_text("beside the splits")
    (folder / "train" / "labels.csv").write_text("beside the classes")
    assert values(folder) == before
    (folder / "train" / "a" / "x.heic").write_text("in a class")
    (folder / "train" / "b" / "y").write_text("in a class")
    with pytest.warns(UserWarning, match=r"train: 2 file\(s\) are left out, such as a.x.heic: images lie in"):
        assert values(folder) == before
    for path in (folder / "train" / "a" / "x.heic", folder / "train" / "b" / "y"):
        path.unlink()
    picture(folder / "test" / "z.png")  # an image, but of no class
    with pytest.warns(UserWarning, match=r"test: 1 file\(s\) are left out, such as z.png"):
        assert values(folder) == before


def test_splits_of_other_names_are_not_taken_for_classes(folder: Path):
    (folder / "train").rename(folder / "Training")
    (folder / "test").rename(folder / "Testing")
    with pytest.raises(InputError, match=r"Testing and Training would be the classes, and look like splits; call them"):
        values(folder)


def test_links_are_followed_to_files_and_folders(folder: Path, tmp_path: Path):
    picture(tmp_path / "elsewhere" / "7.png", 70)
    picture(tmp_path / "one.png", 71)
    (folder / "train" / "a" / "more").symlink_to(tmp_path / "elsewhere")
    (folder / "train" / "b" / "one.png").symlink_to(tmp_path / "one.png")
    assert values(folder)[0] == [0, 1, 2, 70, 3, 4, 5, 71]


@pytest.mark.parametrize("target", ["a", ".", "..", "../..", "b", "/"])
def test_a_link_that_gives_images_twice_or_without_end_is_refused(folder: Path, target: str):
    train = folder / "train"
    (train / "b" / "again").symlink_to((train / ("" if target in "ab" else "b") / target).resolve())
    with pytest.raises(InputError, match=r"again: is the folder .* once more; remove the link"):
        values(folder)


def test_a_link_to_nothing_and_what_is_no_file_are_named(folder: Path):
    path = folder / "train" / "a" / "9.png"
    for make in (lambda: path.symlink_to(folder / "nowhere.png"), lambda: os.mkfifo(path)):
        make()
        with pytest.raises(InputError, match=r"9.png: is a link to nothing, or no ordinary file; remove it"):
            values(folder)
        path.unlink()


def test_a_folder_that_must_not_be_read_is_named(folder: Path, monkeypatch):
    scandir = os.scandir

    def refused(path):
        if Path(path).name == "x":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    picture(folder / "train" / "a" / "x" / "3.png")
    monkeypatch.setattr("etfopt.experiments.data._walk.os.scandir", refused)
    with pytest.raises(InputError, match=r"train/a/x: cannot be read: Permission denied"):
        values(folder)
