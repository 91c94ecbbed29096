"""Task sources by name, and few-shot tasks from a user's own images."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from rlnas.datasets import parse_tasks, source_from_spec
from rlnas.digits import DigitsSource
from rlnas.errors import ConfigurationError, DataError, UnknownNameError
from rlnas.few_shot import SPLITS, FewShotOptions, FewShotSource
from rlnas.images import ImageSet
from rlnas.task import FewShotTask, TaskSource

SMALL = {"ways": 3, "shots": (1, 4), "queries": 5}


@lru_cache(maxsize=1)
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Real handwritten digits as bytes, (1797, 8, 8), and their labels."""
    data = load_digits()
    return (data.images * 15.9).astype(np.uint8), data.target


def digit_set(per_class: int = 60, parts: tuple[np.ndarray, ...] | None = None) -> ImageSet:
    x, y = digits()
    return ImageSet("made", tuple("0123456789"), tuple(x[y == c][:per_class] for c in range(10)), parts)


def few_shot(text: str, **options: Any) -> tuple[FewShotSource, str]:
    source, split = parse_tasks(text, **options)
    assert isinstance(source, FewShotSource)
    return source, split


def task_of(source: TaskSource, split: str, index: int) -> FewShotTask:
    task = source.task(split, index)
    assert isinstance(task, FewShotTask)
    return task


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten classes of fifty real digits as PNG files."""
    x, y = digits()
    root = tmp_path / "digits"
    for label in range(10):
        (root / f"digit-{label}").mkdir(parents=True)
        for number, image in enumerate(x[y == label][:50]):
            Image.fromarray(image).save(root / f"digit-{label}" / f"{number:03}.png")
    return root


@pytest.fixture
def save_npz(tmp_path: Path) -> Callable[..., Path]:
    def save(**arrays: Any) -> Path:
        path = tmp_path / "images.npz"
        np.savez(path, **arrays)
        return path

    return save


# --- Tasks from images ------------------------------------------------------------------------------------------------


def test_a_task_has_the_asked_for_ways_shots_and_queries() -> None:
    source = FewShotSource(digit_set(170), FewShotOptions(ways=(2, 6), shots=(1, 8), queries=15))
    drawn = [task_of(source, "train", index) for index in range(200)]
    assert {t.ways for t in drawn} == {2, 3, 4, 5, 6}
    assert {t.shots for t in drawn} == set(range(1, 9))
    for task in drawn:
        assert np.bincount(task.support_y).tolist() == [task.shots] * task.ways
        assert np.bincount(task.query_y).tolist() == [15] * task.ways
        assert task.image_shape == (1, 8, 8)
        assert task.family == "made"


def test_tasks_show_the_images_of_the_classes_they_name() -> None:
    images = digit_set()
    home = {image.tobytes(): label for label, array in enumerate(images.images) for image in array}
    task = task_of(FewShotSource(images, FewShotOptions(**SMALL)), "train", 11)
    for x, y in ((task.support_x, task.support_y), (task.query_x, task.query_y)):
        labels = [home[np.round(image * 255).astype(np.uint8).transpose(1, 2, 0).tobytes()] for image in x]
        assert len({(new, old) for new, old in zip(y.tolist(), labels, strict=True)}) == task.ways


@pytest.mark.parametrize(
    ("dtype", "white"), [(np.uint8, 255), (np.int64, 255), (np.float32, 255), (np.float64, 1), (np.float16, 1)]
)
def test_pixels_of_every_kind_are_shown_in_the_unit_range(dtype: Any, white: int) -> None:
    x = digit_set().images
    images = tuple((a / 255 * white).astype(dtype) for a in x)
    task = task_of(FewShotSource(ImageSet("made", tuple("0123456789"), images), FewShotOptions(**SMALL)), "val", 0)
    reference = task_of(FewShotSource(digit_set(), FewShotOptions(**SMALL)), "val", 0)
    np.testing.assert_allclose(task.query_x, reference.query_x, atol=1e-2 if white == 1 else 1e-6)
    assert task.support_x.dtype == np.float32


def test_booleans_are_black_and_white() -> None:
    images = ImageSet("made", ("a", "b"), (np.ones((2, 3, 3), bool), np.zeros((2, 3, 3), bool)))
    assert images.images[0].max() == 255


def test_colours_become_channels_and_images_need_not_be_square() -> None:
    rng = np.random.default_rng(0)
    images = tuple(rng.integers(0, 256, (40, 6, 9, 3), dtype=np.uint8) for _ in range(3))
    source = FewShotSource(ImageSet("made", ("a", "b", "c"), images), FewShotOptions(ways=2, shots=1, queries=5))
    task = task_of(source, "test", 0)
    assert task.image_shape == (3, 6, 9)
    shown = np.round(task.query_x[0] * 255).astype(np.uint8).transpose(1, 2, 0)
    assert any((shown == image).all() for array in images for image in array)


@settings(max_examples=30, deadline=None)
@given(
    classes=st.integers(2, 30),
    per_class=st.integers(30, 60),
    ways=st.integers(2, 6),
    seed=st.integers(0, 2**32),
    split_by=st.sampled_from([None, "classes", "images"]),
)
def test_splits_share_no_image(classes: int, per_class: int, ways: int, seed: int, split_by: str | None) -> None:
    names = tuple(map(str, range(classes)))
    images = ImageSet("made", names, tuple(np.zeros((per_class, 2, 2), np.uint8) for _ in names))
    options = FewShotOptions(ways=ways, shots=1, queries=5, seed=seed, split_by=split_by)
    enough = {"classes": classes // 5, "images": classes, None: classes}[split_by] >= ways
    if not enough:
        with pytest.raises(ConfigurationError, match=f"ways up to {ways}"):
            FewShotSource(images, options)
        return
    source = FewShotSource(images, options)
    members = {split: source.members(split) for split in SPLITS}
    pairs = [(name, int(i)) for split in SPLITS for name, numbers in members[split].items() for i in numbers]
    assert len(set(pairs)) == len(pairs) == classes * per_class
    by_classes = split_by == "classes" or (split_by is None and classes // 5 >= ways)
    if by_classes:
        assert [len(members[s]) for s in ("val", "test")] == [classes // 5] * 2
        assert len({name for split in SPLITS for name in members[split]}) == classes
    else:
        assert all(set(members[split]) == set(names) for split in SPLITS)
        assert all(len(members["test"][name]) == per_class // 5 for name in names)


def test_another_seed_draws_other_splits_and_tasks() -> None:
    one, same, other = (FewShotSource(digit_set(), FewShotOptions(**SMALL, seed=seed)) for seed in (1, 1, 2))
    assert one.task("test", 4).digest == same.task("test", 4).digest != other.task("test", 4).digest
    assert any(not np.array_equal(one.members("test")[c], other.members("test")[c]) for c in "0123456789")


def test_tasks_differ() -> None:
    source = FewShotSource(digit_set(), FewShotOptions(**SMALL))
    digests = {source.task(split, index).digest for split in SPLITS for index in range(60)}
    assert len(digests) == 180


def test_large_tasks_are_not_all_kept() -> None:
    images = ImageSet("made", ("a", "b"), tuple(np.zeros((100, 64, 64, 3), np.uint8) for _ in "ab"))
    source = FewShotSource(images, FewShotOptions(ways=2, shots=5, queries=15))
    assert source.cache_size * 40 * 64 * 64 * 3 * 4 <= 2**28
    assert FewShotSource(digit_set(), FewShotOptions(**SMALL)).cache_size == 256


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 1}, "ways must be an integer >= 2, got 1"),
        ({"ways": (5, 3)}, r"ways must be \(low, high\) with low <= high, got \(5, 3\)"),
        ({"ways": (2, 3, 4)}, r"ways must be an integer or \(low, high\)"),
        ({"ways": "many"}, r"ways must be an integer or \(low, high\), got 'many'"),
        ({"ways": True}, "ways must be an integer >= 2, got True"),
        ({"shots": 0}, "shots must be an integer >= 1, got 0"),
        ({"shots": (0, 5)}, "shots must be an integer >= 1, got 0"),
        ({"shots": (1, 2.5)}, "shots must be an integer >= 1, got 2.5"),
        ({"queries": 0}, "queries must be an integer >= 1, got 0"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"split_by": "class"}, "unknown split_by 'class'; did you mean 'classes'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        FewShotOptions(**options)


def test_too_few_classes_for_the_ways_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="ways up to 11 are asked for, but made:train has 10 classes"):
        FewShotSource(digit_set(), FewShotOptions(ways=(2, 11), queries=5))
    with pytest.raises(ConfigurationError, match="made:val has 2 classes"):
        FewShotSource(digit_set(), FewShotOptions(ways=3, queries=5, split_by="classes"))


def test_too_few_images_are_refused_with_class_and_counts() -> None:
    with pytest.raises(DataError, match=r"class '0' has 60 images, 12 of them for val; 5 shots and 15 queries need 20"):
        FewShotSource(digit_set(), FewShotOptions(ways=5, shots=(1, 5), queries=15))


@pytest.mark.parametrize(
    ("classes", "images", "message"),
    [
        ((), (), "at least two classes, has 0"),
        (("a",), (np.zeros((3, 2, 2)),), r"at least two classes, has 1 \('a'\)"),
        (("a", "b"), (np.zeros((3, 2, 2)),), "images by class: expected 2, got 1"),
        (("a", "b"), (np.zeros((3, 2, 2)), np.zeros((3, 2, 3))), "class 'b': images are float32 of"),
        (("a", "b"), (np.zeros((3, 2, 2)), np.zeros((3, 2, 2), np.uint8)), "class 'b': images are uint8"),
        (("a", "b"), (np.zeros((3, 2, 2)), np.full((3, 2, 2), np.nan)), "class 'b': pixels must be finite"),
        (("a", "b"), (np.zeros((3, 2, 2)), np.full((3, 2, 2), -1)), r"class 'b': pixels must lie in 0 \.\. 255"),
        (("a", "b"), (np.zeros((3, 2, 2)), np.full((3, 2, 2), 256)), r"class 'b': pixels must lie in 0 \.\. 255"),
        (("a", "b"), (np.zeros((3, 2, 2)), np.zeros((0, 2, 2))), "class 'b': holds no image"),
        (("a", "b"), (np.zeros((3, 2, 2, 2)), np.zeros((3, 2, 2, 2))), "class 'a': images must be .* 1 or 3 channels"),
        (("a", "b"), (np.full((3, 2, 2), "x"), np.zeros((3, 2, 2))), "class 'a': pixels must be numbers"),
    ],
)
def test_images_that_cannot_serve_are_refused(classes: Any, images: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ImageSet("made", classes, images)


# --- Official splits --------------------------------------------------------------------------------------------------


def test_an_official_split_by_classes_is_kept_and_val_is_a_quarter_of_train() -> None:
    x, y = digits()
    names, images = tuple(map(str, range(20))), tuple(x[y == c % 10][:60] for c in range(20))
    parts = tuple(np.full(60, 2 if c >= 12 else 0, np.int8) for c in range(20))
    source = FewShotSource(ImageSet("made", names, images, parts), FewShotOptions(ways=3))
    assert list(source.members("test")) == list(names[12:])
    assert [len(source.members(split)) for split in ("train", "val")] == [9, 3]
    assert not set(source.members("train")) & set(source.members("val"))
    with pytest.raises(ConfigurationError, match="made:val has 3 classes"):
        FewShotSource(source.images, FewShotOptions(ways=4))


def test_an_official_split_by_images_is_kept() -> None:
    parts = tuple(np.repeat(np.array([0, 2], np.int8), [40, 20]) for _ in range(10))
    source = FewShotSource(digit_set(parts=parts), FewShotOptions(**SMALL))
    for name in "0123456789":
        assert source.members("test")[name].tolist() == list(range(40, 60))
        assert len(source.members("val")[name]) == 10
        assert len(source.members("train")[name]) == 30
    assert all(part.tolist().count(0) == 40 for part in parts)


def test_a_complete_official_split_is_kept_as_it_is() -> None:
    part = np.repeat(np.array([1, 0, 2], np.int8), 20)
    source = FewShotSource(digit_set(parts=(part,) * 10), FewShotOptions(**SMALL))
    assert source.members("val")["3"].tolist() == list(range(20))
    assert source.members("train")["3"].tolist() == list(range(20, 40))


def test_split_by_may_not_contradict_the_official_split() -> None:
    part = np.repeat(np.array([1, 0, 2], np.int8), 20)
    with pytest.raises(ConfigurationError, match="split_by must be images"):
        FewShotSource(digit_set(parts=(part,) * 10), FewShotOptions(**SMALL, split_by="classes"))


# --- Folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_of_png_files_makes_the_tasks_of_the_same_arrays(folder: Path) -> None:
    source, split = few_shot(f"folder:{folder}:val", **SMALL)
    assert (split, source.name) == ("val", f"folder:{folder}")
    assert source.images.classes[:2] == ("digit-0", "digit-1")
    arrays = FewShotSource(digit_set(50), FewShotOptions(**SMALL))
    for index in range(3):
        assert source.task("val", index).digest == arrays.task("val", index).digest
    assert source.named(source.task("val", 2).name) is source.task("val", 2)


def test_a_folder_is_rebuilt_from_its_spec_in_another_process(folder: Path) -> None:
    source, _ = few_shot(f"folder:{folder}:val", **SMALL, seed=3, image_size=(6, 10))
    spec = json.loads(json.dumps(source.spec()))
    assert spec == source.spec()
    program = (
        "import json, sys\n"
        "from rlnas.datasets import source_from_spec\n"
        "source = source_from_spec(json.loads(sys.argv[1]))\n"
        "print(source.task('test', 7).digest, source.task('train', 1000).digest)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, json.dumps(spec)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [source.task("test", 7).digest, source.task("train", 1000).digest]
    assert source_from_spec(spec).spec() == spec


def test_a_relative_path_becomes_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    source, _ = few_shot("folder:digits:val", **SMALL)
    assert source.spec()["path"] == str(folder)


def test_a_changed_folder_is_refused_on_replay(folder: Path) -> None:
    spec = few_shot(f"folder:{folder}:val", **SMALL)[0].spec()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "digit-3" / "000.png")
    with pytest.raises(DataError, match=rf"folder:{folder}: its images are not those that the record was made with"):
        source_from_spec(spec)


def test_hidden_files_and_other_files_are_skipped_and_deeper_images_found(folder: Path) -> None:
    before = few_shot(f"folder:{folder}:val", **SMALL)[0].images.digest
    (folder / ".cache").mkdir()
    (folder / "README.md").write_text("ten digits")
    (folder / "digit-0" / "labels.txt").write_text("0")
    (folder / "digit-0" / ".DS_Store.png").write_bytes(b"no image")
    deeper = folder / "digit-9" / "more"
    deeper.mkdir()
    shutil.move(folder / "digit-9" / "049.png", deeper / "049.png")
    after = few_shot(f"folder:{folder}:val", **SMALL)[0].images
    assert after.digest == before


def test_image_size_resizes_and_is_needed_where_sizes_differ(folder: Path) -> None:
    odd = folder / "digit-4" / "007.png"
    Image.new("L", (11, 7)).save(odd)
    with pytest.raises(DataError, match="need image_size") as caught:
        few_shot(f"folder:{folder}:val", **SMALL)
    assert str(odd) in str(caught.value)
    assert str(folder / "digit-0" / "000.png") in str(caught.value)
    source, _ = few_shot(f"folder:{folder}:val", **SMALL, image_size=12)
    assert task_of(source, "val", 0).image_shape == (1, 12, 12)


@pytest.mark.parametrize("size", [0, -3, 2.5, (3,), (3, 0), "big", True])
def test_an_image_size_that_makes_no_sense_is_refused(folder: Path, size: Any) -> None:
    with pytest.raises(ConfigurationError, match="image_size must be"):
        few_shot(f"folder:{folder}:val", **SMALL, image_size=size)


def test_resizing_keeps_the_picture() -> None:
    rows, columns = np.mgrid[:16, :8]
    slope = np.stack([10 * rows + 5 * columns, 200 - 10 * rows, 20 * columns], axis=2).astype(np.uint8)
    images = ImageSet("made", ("a", "b"), (slope[None], slope[None]))
    assert images.resized((16, 8)) is images
    larger = images.resized((32, 24))
    assert larger.images[0].shape == (1, 32, 24, 3)
    back = larger.resized((16, 8)).images[0][0].astype(int)
    assert np.abs(back - slope)[1:-1, 1:-1].max() <= 2
    floats = ImageSet("made", ("a", "b"), (slope[None] / 255, slope[None] / 255)).resized((32, 24))
    np.testing.assert_allclose(floats.images[0] * 255, larger.images[0], atol=1.5)


def test_one_colour_image_makes_all_of_them_rgb(folder: Path) -> None:
    colour = np.zeros((8, 8, 3), np.uint8)
    colour[..., 0] = 200
    Image.fromarray(colour).save(folder / "digit-2" / "000.bmp")
    images = few_shot(f"folder:{folder}:val", **SMALL)[0].images
    assert images.image_shape == (8, 8, 3)
    np.testing.assert_array_equal(images.images[2][0], colour)
    np.testing.assert_array_equal(images.images[0][..., 0], images.images[0][..., 2])


@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        ("a.png", Image.new("1", (8, 8), 1), [255]),
        ("a.png", Image.fromarray(np.full((8, 8), 0x8040, np.uint16)), [0x80]),
        ("a.png", Image.new("LA", (8, 8), (10, 0)), [255]),
        ("a.png", Image.new("RGBA", (8, 8), (10, 20, 30, 0)), [255, 255, 255]),
        ("a.png", Image.new("RGBA", (8, 8), (10, 20, 30, 255)), [10, 20, 30]),
        ("a.gif", Image.new("L", (8, 8), 77).convert("P"), [77, 77, 77]),
        ("a.tif", Image.new("CMYK", (8, 8), (255, 0, 0, 0)), [0, 255, 255]),
        ("A.JPG", Image.new("L", (8, 8), 50), [50]),
        ("a.webp", Image.new("RGB", (8, 8), (0, 0, 0)), [0, 0, 0]),
        ("a.pgm", Image.new("L", (8, 8), 9), [9]),
    ],
)
def test_every_kind_of_image_file_is_read(tmp_path: Path, name: str, image: Image.Image, expected: list[int]) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(10):
            image.save(tmp_path / label / f"{number}{name}")
    images = few_shot(f"folder:{tmp_path}:val", ways=2, shots=1, queries=1)[0].images
    assert images.images[0].shape == (10, 8, 8, len(expected))
    assert images.images[0][0, 4, 4].tolist() == expected


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(10):
            Image.new("L", (8, 16)).save(tmp_path / label / f"{number}.jpg", exif=exif)
    images = few_shot(f"folder:{tmp_path}:val", ways=2, shots=1, queries=1)[0].images
    assert images.image_shape == (8, 16, 1)


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "missing"])
def test_a_corrupt_image_is_named(folder: Path, damage: str) -> None:
    path = folder / "digit-5" / "011.png"
    whole = path.read_bytes()
    path.unlink()
    if damage == "missing":
        path.symlink_to(folder / "digit-5" / "gone.png")
    else:
        path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "text": b"not an image"}[damage])
    with pytest.raises(DataError, match=rf"{path}: not a readable image"):
        few_shot(f"folder:{folder}:val", **SMALL)


def test_a_decompression_bomb_is_named_and_not_unpacked(folder: Path) -> None:
    path = folder / "digit-5" / "011.png"
    whole = bytearray(path.read_bytes())
    whole[16:24] = struct.pack(">II", 12_000, 12_000)  # the header's width and height
    whole[29:33] = struct.pack(">I", zipfile.crc32(bytes(whole[12:29])))
    path.write_bytes(whole)
    with pytest.raises(DataError, match=rf"{path}: not a readable image \(Image size \(144000000 pixels\) exceeds"):
        few_shot(f"folder:{folder}:val", **SMALL)


def test_links_that_leave_the_folder_are_refused(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    Image.new("L", (8, 8)).save(secret)
    link = folder / "digit-5" / "zzz.png"
    link.symlink_to(secret)
    with pytest.raises(DataError, match=f"{link}: is a link that leaves {folder}"):
        few_shot(f"folder:{folder}:val", **SMALL)
    link.unlink()
    (tmp_path / "elsewhere").mkdir()
    (folder / "zzz").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="zzz: is a link that leaves"):
        few_shot(f"folder:{folder}:val", **SMALL)


def test_links_within_the_folder_are_followed(folder: Path) -> None:
    (folder / "digit-5" / "zzz.png").symlink_to(folder / "digit-5" / "000.png")
    assert len(few_shot(f"folder:{folder}:val", **SMALL)[0].images.images[5]) == 51


def test_folders_that_cannot_serve_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{tmp_path}/none: no such folder"):
        few_shot(f"folder:{tmp_path}/none:val")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: has no sub-folders"):
        few_shot(f"folder:{tmp_path}/empty:val")
    (folder / "digit-zero").mkdir()
    with pytest.raises(DataError, match="digit-zero: has no images"):
        few_shot(f"folder:{folder}:val")
    for label in ("zero", *range(1, 10)):
        shutil.rmtree(folder / f"digit-{label}")
    with pytest.raises(DataError, match=r"at least two classes, has 1 \('digit-0'\)"):
        few_shot(f"folder:{folder}:val")


def test_a_class_with_too_few_images_is_named(folder: Path) -> None:
    for number in range(3, 50):
        (folder / "digit-6" / f"{number:03}.png").unlink()
    with pytest.raises(
        DataError, match="class 'digit-6' has 3 images, 3 of them for train; 4 shots and 5 queries need 9"
    ):
        few_shot(f"folder:{folder}:val", **SMALL)


# --- .npz files -------------------------------------------------------------------------------------------------------


def test_labelled_images_of_an_npz_make_the_tasks_of_the_same_arrays(save_npz: Callable[..., Path]) -> None:
    x, y = digits()
    source, split = few_shot(f"npz:{save_npz(x=x, y=y, extra=np.zeros(3))}:train", **SMALL)
    arrays = FewShotSource(digit_set(10_000), FewShotOptions(**SMALL))
    assert source.task(split, 5).digest == arrays.task("train", 5).digest
    rebuilt = source_from_spec(json.loads(json.dumps(source.spec())))
    assert rebuilt.spec() == source.spec()
    assert rebuilt.task("test", 5).digest == source.task("test", 5).digest


def test_train_and_test_arrays_are_the_official_split(save_npz: Callable[..., Path]) -> None:
    x, y = digits()
    path = save_npz(x_train=x[:1000], y_train=y[:1000], x_test=x[1000:], y_test=y[1000:])
    source, _ = few_shot(f"npz:{path}:train", **SMALL)
    assert sum(len(m) for m in source.members("test").values()) == 797
    zeros = source.images.images[0][source.members("test")["0"]]
    np.testing.assert_array_equal(zeros[..., 0], x[1000:][y[1000:] == 0])


@pytest.mark.parametrize("names", [("x_train", "y_train"), ("x_test", "y_test")])
def test_one_half_alone_is_split_as_usual(save_npz: Callable[..., Path], names: tuple[str, str]) -> None:
    x, y = digits()
    source, _ = few_shot(f"npz:{save_npz(**dict(zip(names, (x, y), strict=True)))}:train", **SMALL)
    assert len(source.members("val")["0"]) == np.sum(y == 0) // 5


def test_labels_may_be_texts(save_npz: Callable[..., Path]) -> None:
    x, y = digits()
    source, _ = few_shot(f"npz:{save_npz(x=x, y=np.array(list('abcdefghij'))[y])}:train", **SMALL)
    assert source.images.classes == tuple("abcdefghij")


@pytest.mark.parametrize(("codes", "val"), [((0, 1, 2), 2), ((0, 1), 2), ((0, 2), 2)])
def test_class_arrays_with_a_split_by_class(save_npz: Callable[..., Path], codes: tuple[int, ...], val: int) -> None:
    x, y = digits()
    images = np.stack([x[y == c][:20] for c in range(10)] * 2)
    split = np.repeat(codes, [8, 2, 10] if len(codes) == 3 else [10, 10])
    source, _ = few_shot(f"npz:{save_npz(images=images, split=split)}:test", ways=2, shots=5, queries=15)
    assert list(source.members("test")) == [str(c) for c in range(10, 20)]
    assert len(source.members("val")) == val
    if len(codes) == 3:
        assert list(source.members("val")) == ["8", "9"]


def test_a_split_may_be_given_for_each_image(save_npz: Callable[..., Path]) -> None:
    x, y = digits()
    split = np.arange(len(y)) % 3
    source, _ = few_shot(f"npz:{save_npz(x=x, y=y, split=split)}:test", **SMALL)
    assert len(source.members("test")["4"]) == np.sum((y == 4) & (split == 2))


X, Y = np.zeros((40, 4, 4), np.uint8), np.repeat([0, 1], 20)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": X}, "has neither images nor x nor x_train nor x_test"),
        ({"x": X}, "has x but not its labels y"),
        ({"x_train": X, "y": Y}, "has x_train but not its labels y_train"),
        ({"x": X, "y": Y[:39]}, r"y must be 40 integers or texts, .*; got int64 of shape \(39,\)"),
        ({"x": X, "y": Y[:, None]}, r"y must be 40 integers"),
        ({"x": X, "y": Y / 2}, r"y must be 40 integers or texts, .*; got float64"),
        ({"x": X, "y": Y * 0}, r"at least two classes, has 1 \('0'\)"),
        ({"x": np.where(np.arange(4) == 2, np.nan, X), "y": Y}, "x: pixels must be finite, found NaN"),
        ({"x": X - 1.0, "y": Y}, r"x: pixels must lie in 0 \.\. 255"),
        ({"x": np.array([None] * 40), "y": Y}, "x cannot be read"),
        ({"x": X, "y": np.array([None] * 40)}, "y cannot be read"),
        ({"x": X.transpose(1, 2, 0), "y": Y}, "y must be 4 integers"),
        ({"x": X[:, 0], "y": Y}, "class '0': images must be"),
        ({"x_train": X, "y_train": Y, "x_test": X[:, :3], "y_test": Y}, "images differ in shape or kind"),
        ({"images": X}, r"images must have shape \(classes, n, H, W\)"),
        ({"images": X[None]}, "at least two classes, has 1"),
        ({"images": np.stack([X, X]), "split": np.array([0, 1, 2])}, "split: must be 2 numbers"),
        ({"images": np.stack([X, X]), "split": np.array([0, 3])}, r"split: must be 2 numbers.* values \[0, 3\]"),
        ({"images": np.stack([X, X]), "split": np.array([1, 1])}, r"values \[1\]"),
        ({"x": X[:0], "y": Y[:0]}, "x: holds no image"),
    ],
)
def test_arrays_of_an_npz_that_cannot_serve_are_refused(
    save_npz: Callable[..., Path], arrays: dict[str, Any], message: str
) -> None:
    path = save_npz(**arrays)
    with pytest.raises(DataError, match=message) as caught:
        few_shot(f"npz:{path}:test", ways=2, shots=1, queries=3)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("damage", ["missing", "folder", "empty", "text", "cut", "flipped", "single array", "pickle"])
def test_files_that_are_no_npz_are_refused(save_npz: Callable[..., Path], damage: str) -> None:
    x, y = digits()
    path = save_npz(x=x, y=y)
    whole = bytearray(path.read_bytes())
    if damage == "flipped":
        whole[5000] ^= 0xFF
        path.write_bytes(whole)
    elif damage == "single array":
        np.save(path.with_suffix(".npy"), x)
        path = path.with_suffix(".npy")
    elif damage in ("missing", "folder"):
        path.unlink()
        if damage == "folder":
            path.mkdir()
    else:
        bad = {"empty": b"", "text": b"x,y\n1,2\n", "cut": bytes(whole[: len(whole) // 2]), "pickle": pickle.dumps([1])}
        path.write_bytes(bad[damage])
    with pytest.raises(DataError, match=rf"{path}: "):
        few_shot(f"npz:{path}:test", **SMALL)


def test_a_changed_npz_is_refused_on_replay(save_npz: Callable[..., Path]) -> None:
    x, y = digits()
    spec = few_shot(f"npz:{save_npz(x=x, y=y)}:test", **SMALL)[0].spec()
    save_npz(x=x, y=np.roll(y, 1))
    with pytest.raises(DataError, match="its images are not those that the record was made with"):
        source_from_spec(spec)


# --- Real image sets --------------------------------------------------------------------------------------------------


def real(name: str) -> Path:
    """A real image set below the folder that RLNAS_DATA names; skips where it is absent."""
    path = Path(os.environ.get("RLNAS_DATA") or "none", name)
    if not path.is_file():
        pytest.skip(f"{name} is not there; RLNAS_DATA may name a folder that has it")
    return path


@pytest.mark.parametrize(
    ("file", "classes", "shape"),
    [
        ("omniglot/omniglot28.npz", (723, 241, 659), (1, 28, 28)),
        ("tiny_imagenet/tiny32_202x50.npz", (122, 30, 50), (3, 32, 32)),
        ("kannada_mnist/kannada.npz", (10, 10, 10), (1, 28, 28)),
        ("sign_digits/sign_digits32.npz", (10, 10, 10), (3, 32, 32)),
        ("cifar10/cifar10_6k.npz", (10, 10, 10), (3, 32, 32)),
    ],
)
def test_real_sets_make_tasks(file: str, classes: tuple[int, ...], shape: tuple[int, int, int]) -> None:
    source, _ = few_shot(f"npz:{real(file)}:test")
    assert tuple(len(source.members(split)) for split in SPLITS) == classes
    for split in SPLITS:
        task = task_of(source, split, SPLITS[split] - 1)
        assert task.image_shape == shape
        assert len(task.query_y) == 75
        assert 0 <= task.query_x.min() < task.query_x.max() <= 1


def test_real_characters_can_be_told_apart() -> None:
    """Nearest class mean on raw pixels scores about 70 % on 5-way 5-shot tasks of real characters."""
    source, split = few_shot(f"npz:{real('omniglot/omniglot28.npz')}:test", shots=5)
    right = []
    for index in range(100):
        task = task_of(source, split, index)
        means = np.stack([task.support_x[task.support_y == c].mean(0) for c in range(5)])
        distances = ((task.query_x[:, None] - means) ** 2).sum((2, 3, 4))
        right.append((distances.argmin(1) == task.query_y).mean())
    assert np.mean(right) == pytest.approx(0.703, abs=0.04)


def test_the_official_split_of_real_characters_is_kept() -> None:
    path = real("omniglot/omniglot28.npz")
    source, _ = few_shot(f"npz:{path}:test")
    with np.load(path) as file:
        evaluation = np.flatnonzero(file["split"] == 1)
    assert list(source.members("test")) == [str(c) for c in evaluation]


# --- torchvision's sets -----------------------------------------------------------------------------------------------


def write_fashion_mnist(root: Path) -> None:
    """Real digits in the files of Fashion-MNIST, enlarged to its 28 x 28 pixels."""
    x, y = digits()
    x = np.pad(x.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, part in (("train", slice(0, 1200)), ("t10k", slice(1200, None))):
        images, labels = x[part], y[part].astype(np.uint8)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(
            struct.pack(">4i", 2051, len(images), 28, 28) + images.tobytes()
        )
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, len(labels)) + labels.tobytes())


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real digits in the files of CIFAR-10; only the published checksums are replaced by those of these files."""
    x, y = digits()
    rows = np.tile(x.repeat(4, axis=1).repeat(4, axis=2).reshape(len(x), 1, -1), (1, 3, 1)).reshape(len(x), -1)
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    sums = {}
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        members = np.arange(len(x)) % 6 == number
        content = {"data": rows[members], "labels": y[members].tolist()}
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("0123456789")}))
    meta_sum = hashlib.md5((folder / "batches.meta").read_bytes()).hexdigest()
    cifar = torchvision.datasets.CIFAR10
    monkeypatch.setattr(cifar, "train_list", [[n, s] for n, s in sums.items() if n != "test_batch"])
    monkeypatch.setattr(cifar, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(cifar, "meta", {**cifar.meta, "md5": meta_sum})


def write_omniglot(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty-four 'characters' in the files of Omniglot; only the published checksums are replaced."""
    x, y = digits()
    folder = root / "omniglot-py"
    sums = {}
    for name, characters in (("images_background", range(16)), ("images_evaluation", range(16, 24))):
        for character in characters:
            place = folder / name / f"alphabet{character // 8}" / f"character{character % 8:02}"
            place.mkdir(parents=True)
            start = 40 * (character // 10)
            for number, image in enumerate(x[y == character % 10][start : start + 20]):
                drawing = Image.fromarray(image < 128).resize((105, 105))
                drawing.save(place / f"{character:04}_{number:02}.png")
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            archive.writestr("note", name)
        sums[name] = hashlib.md5((folder / f"{name}.zip").read_bytes()).hexdigest()
    monkeypatch.setattr(torchvision.datasets.Omniglot, "zips_md5", sums)


@pytest.fixture
def no_default_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Neither RLNAS_DATA nor a cache of downloads; the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RLNAS_DATA", raising=False)
    return tmp_path / "home"


def test_fashion_mnist_is_read(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path)
    source, split = few_shot("fashion-mnist:test", data=tmp_path)
    y = digits()[1]
    assert {name: len(m) for name, m in source.members("test").items()} == {
        str(c): int(np.sum(y[1200:] == c)) for c in range(10)
    }
    task = task_of(source, split, 0)
    assert task.image_shape == (1, 28, 28)
    assert task.query_x.max() > 0.9
    assert source.spec()["data"] == str(tmp_path)
    assert source_from_spec(json.loads(json.dumps(source.spec()))).task(split, 9).digest == source.task(split, 9).digest


def test_cifar10_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path, monkeypatch)
    source, split = few_shot("cifar10:train", data=tmp_path, queries=15)
    assert sum(len(m) for m in source.members("test").values()) == 299
    assert task_of(source, split, 0).image_shape == (3, 32, 32)


def test_a_changed_cifar10_batch_is_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path, monkeypatch)

    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "exploded",))

    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match=f"cifar10: the copy in {tmp_path} cannot be read or completed"):
        few_shot("cifar10:train", data=tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_omniglot_is_read_with_its_official_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_omniglot(tmp_path, monkeypatch)
    source, _ = few_shot("omniglot:test", data=tmp_path, ways=(2, 4))
    assert [len(source.members(split)) for split in SPLITS] == [12, 4, 8]
    assert set(source.members("test")) == {str(c) for c in range(16, 24)}
    assert task_of(source, "test", 3).image_shape == (1, 28, 28)
    other, _ = few_shot("omniglot:test", data=tmp_path, ways=2, image_size=14)
    assert task_of(other, "test", 3).image_shape == (1, 14, 14)


def test_a_cut_file_of_fashion_mnist_is_refused(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path)
    path = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=f"fashion-mnist: the copy in {tmp_path} cannot be read or completed"):
        few_shot("fashion-mnist:test", data=tmp_path)
    path.unlink()
    with pytest.raises(DataError, match="Dataset not found"):
        few_shot("fashion-mnist:test", data=tmp_path)


@pytest.mark.parametrize("kind", ["omniglot", "fashion-mnist", "cifar10"])
def test_an_absent_set_is_reported_in_one_line(kind: str, no_default_places: Path) -> None:
    with pytest.raises(DataError, match=f"{kind} is not there .*--download fetches it") as caught:
        parse_tasks(f"{kind}:test")
    assert str(no_default_places / ".cache" / "rlnas") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_places_are_searched_in_their_order(
    tmp_path: Path, no_default_places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_fashion_mnist(no_default_places / ".cache" / "rlnas")
    monkeypatch.setenv("RLNAS_DATA", str(tmp_path / "own"))
    source, _ = few_shot("fashion-mnist:test")  # RLNAS_DATA does not have it
    assert "data" not in source.spec()
    write_fashion_mnist(tmp_path / "own")
    images = tmp_path / "own" / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1] + b"\x07")
    assert few_shot("fashion-mnist:test")[0].images.digest != source.images.digest
    with pytest.raises(DataError, match=f"looked for {tmp_path}/none/FashionMNIST"):
        parse_tasks("fashion-mnist:test", data=tmp_path / "none")


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address at which this machine serves a folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def test_a_download_goes_through_torchvision(
    tmp_path: Path, no_default_places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a mirror on this machine, so no network is needed; only the published checksums are replaced."""
    write_fashion_mnist(tmp_path / "made")
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    resources = []
    for file in sorted((tmp_path / "made" / "FashionMNIST" / "raw").iterdir()):
        packed = mirror / f"{file.name}.gz"
        packed.write_bytes(gzip.compress(file.read_bytes()))
        resources.append((packed.name, hashlib.md5(packed.read_bytes()).hexdigest()))
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", resources)
    with serving(mirror) as address:
        monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [address])
        source, _ = few_shot("fashion-mnist:test", download=True)
    assert source.images.digest == few_shot("fashion-mnist:test", data=tmp_path / "made")[0].images.digest
    assert (no_default_places / ".cache" / "rlnas" / "FashionMNIST").is_dir()


def test_a_failed_download_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [f"{(tmp_path / 'none').as_uri()}/"])
    with pytest.raises(DataError, match=r"fashion-mnist: .*\(Error downloading train-images-idx3-ubyte.gz"):
        parse_tasks("fashion-mnist:test", data=tmp_path, download=True)


# --- Names and specs --------------------------------------------------------------------------------------------------


def test_digits_are_asked_for_by_name() -> None:
    source, split = parse_tasks("digits:unseen-families", ways=None, data="/ignored")
    assert isinstance(source, DigitsSource)
    assert split == "unseen-families"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("digist:test", UnknownNameError, "unknown task source 'digist'; did you mean 'digits'"),
        ("digits:tset", UnknownNameError, "unknown split 'tset'; did you mean 'test'"),
        ("digits", ConfigurationError, "tasks must be SOURCE:SPLIT"),
        ("", ConfigurationError, "tasks must be SOURCE:SPLIT"),
        (":test", ConfigurationError, "tasks must be SOURCE:SPLIT"),
        ("digits:/tmp:test", ConfigurationError, "digits takes no path"),
        ("omniglot:/tmp:test", ConfigurationError, "omniglot takes no path"),
        ("folder:test", ConfigurationError, "folder needs a path: tasks must be folder:PATH:SPLIT"),
        ("npz::test", ConfigurationError, "npz needs a path"),
        ("table:test", ConfigurationError, "table needs a path"),
        ("cifar10:eval", UnknownNameError, "unknown split 'eval'"),
        ("folder:/none:dev", UnknownNameError, "unknown split 'dev'"),
    ],
)
def test_names_of_another_form_are_refused(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_tasks(text)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown option of the task source digits 'ways'"):
        parse_tasks("digits:test", ways=5)
    with pytest.raises(UnknownNameError, match="unknown option of the task source folder 'shot'; did you mean 'shots'"):
        parse_tasks("folder:/none:test", shot=5)
    with pytest.raises(UnknownNameError, match="unknown option of the task source table 'ways'"):
        parse_tasks("table:/none.npz:all", ways=5)


@pytest.mark.parametrize("spec", [{}, {"kind": "arrays"}, {"kind": None}])
def test_specs_of_no_known_kind_are_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(UnknownNameError, match="unknown task source"):
        source_from_spec(spec)


def test_a_spec_without_its_path_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="npz needs a path"):
        source_from_spec({"kind": "npz"})


def test_a_table_is_a_source_of_tasks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ops = np.array([[a, b] for a in range(3) for b in range(2)], np.int8)
    path = tmp_path / "small.npz"
    np.savez(path, ops=ops, tasks=np.array(["one", "two", "three"]), test=rng.random((6, 3)).astype(np.float32))
    source, split = parse_tasks(f"table:{path}:test", test=["two"])
    assert source.splits == {"train": 2, "test": 1}
    assert source.task(split, 0).family == "two"
    rebuilt = source_from_spec(json.loads(json.dumps(source.spec())))
    assert rebuilt.task(split, 0).digest == source.task(split, 0).digest


def test_an_npz_with_something_else_under_an_array_s_name_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.npz", "w") as archive:
        archive.writestr("images.npy", b"no array")
    with pytest.raises(DataError, match=r"images cannot be read \(it is not an array\)"):
        parse_tasks(f"npz:{tmp_path / 'images.npz'}:train")
