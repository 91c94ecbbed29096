"""A user's own data: reading it, dividing it, showing it to networks and searching on it."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pickle
import struct
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat
from sklearn.datasets import load_digits, load_wine

import rlnas.folder_data
from rlnas.data_division import divide, stratified_order
from rlnas.datasets import parse_tasks, source_from_spec
from rlnas.errors import ConfigurationError, DataError, UnknownNameError
from rlnas.image_files import PIXEL_CAP, read_image
from rlnas.images import covering, shrunk
from rlnas.preprocessing import Preprocessing, preprocessing_of
from rlnas.user_data import UserData, data_from_arrays, read_data
from rlnas.user_source import MAX_QUERIES, UserSource, search_task


def save_image(path: Path, size: tuple[int, int] = (8, 8), value: int | tuple[int, int, int] = 0) -> None:
    """An image file of (height, width) in one grey or colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(value, int) else "RGB", size[::-1], value).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of five grey images; the images of ``cat`` are 10, 11 ... bright, those of ``dog`` 20, 21 ..."""
    root = tmp_path / "pets"
    for label, first in (("cat", 10), ("dog", 20)):
        for number in range(5):
            save_image(root / label / f"{number}.png", value=first + number)
    return root


def tiff(bits: int, pixels: bytes) -> bytes:
    """A TIFF file of 1 x 4 grey pixels of so many bits."""
    tags = {256: 4, 257: 1, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: len(pixels)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return struct.pack("<2sHI", b"II", 42, 8 + len(pixels)) + pixels + directory


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def random_images(shape: tuple[int, ...], ways: int = 2, **options: Any) -> UserData:
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return data_from_arrays(x, np.arange(len(x)) % ways, **options)


def digest_of_rows(images: NDArray[Any]) -> set[bytes]:
    return {image.tobytes() for image in images}


# --- Folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_has_a_class_in_each_sub_folder(folder: Path) -> None:
    data = read_data(folder)
    assert (data.kind, data.classes, data.ways, data.input_shape) == ("images", ("cat", "dog"), 2, (1, 8, 8))
    assert data.name == str(folder)
    assert data.x.dtype == np.uint8
    assert data.x[:, 0, 0, 0].tolist() == [10, 11, 12, 13, 14, 20, 21, 22, 23, 24]
    assert data.y.tolist() == [0] * 5 + [1] * 5
    assert data.test is None


def test_classes_that_are_numbers_ascend(tmp_path: Path) -> None:
    for label in ("10", "9", "-1"):
        save_image(tmp_path / label / "a.png")
    assert read_data(tmp_path).classes == ("-1", "9", "10")


@pytest.mark.parametrize(
    "parts", [("train", "test"), ("train", "test", "val"), ("train", "test", "valid", "validation"), ("Train", "TEST")]
)
def test_a_folder_with_train_and_test_has_an_official_split(tmp_path: Path, parts: tuple[str, ...]) -> None:
    for part in parts:
        for label in ("cat", "dog"):
            save_image(tmp_path / part / label / "a.png", value=200 if part.lower() == "test" else 100)
    data = read_data(tmp_path)
    assert data.classes == ("cat", "dog")
    assert data.test is not None
    np.testing.assert_array_equal(data.test, data.x[:, 0, 0, 0] == 200)
    assert data.test.sum() == 2
    assert len(data.x) == 2 * len(parts)


def test_train_and_test_may_be_classes(tmp_path: Path) -> None:
    for label in ("train", "test"):
        save_image(tmp_path / label / "a.png")
    data = read_data(tmp_path)
    assert (data.classes, data.test) == (("test", "train"), None)


def test_a_class_that_only_the_test_part_has_is_named(tmp_path: Path) -> None:
    for place in ("train/cat", "train/dog", "test/cat", "test/dgo"):
        save_image(tmp_path / place / "a.png")
        save_image(tmp_path / place / "b.png")
    save_image(tmp_path / "test" / "dog" / "a.png")
    with pytest.raises(DataError, match="class 'dgo' has no example outside the official test part"):
        read_data(tmp_path)


def test_test_classes_that_are_all_written_otherwise_are_named(tmp_path: Path) -> None:
    for place in ("train/Cat", "train/Dog", "test/cat", "test/dog"):
        save_image(tmp_path / place / "a.png")
    with pytest.raises(DataError, match="class 'cat' has no example outside the official test part"):
        read_data(tmp_path)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ("training/cat training/dog testing/cat testing/dog", "/training: holds folders, so it is a part of the data"),
        ("training/Cat training/Dog testing/cat testing/dog", "/training: holds folders, so it is a part of the data"),
        ("train/cat train/dog test/cat test/dog unlabelled", "/train: holds folders, so it is a part of the data"),
        ("Train/cat Train/dog Test/cat Test/dog Meta/x", "/Train: holds folders, so it is a part of the data"),
        ("cat/train cat/test dog/train dog/test", "/cat: holds parts of the data, so it is no class"),
    ],
)
def test_parts_are_not_taken_for_classes(tmp_path: Path, places: str, message: str) -> None:
    for place in places.split():
        save_image(tmp_path / place / "a.png")
    with pytest.raises(DataError, match=f"^{tmp_path}{message}.*; parts must be called train, test and val, "):
        read_data(tmp_path)


@pytest.mark.parametrize(
    "places",
    [
        "cat/2021 dog/2022",  # tell themselves apart
        "cat/2020 cat/2021 dog/2021 dog/2022",
        "cat/images dog/images eel/images",
        "cat/in cat/out dog/in dog/out",
        "cat cat/in cat/out dog/in dog/out",
        "train bus/old bus/new car",
        "train/cat/in train/cat/out train/dog/in train/dog/out test/cat test/dog",
    ],
)
def test_images_of_a_class_may_lie_deeper(tmp_path: Path, places: str) -> None:
    for place in places.split():
        save_image(tmp_path / place / "a.png")
    data = read_data(tmp_path)
    assert len(data.x) == len(places.split())
    assert set(data.classes) in ({"cat", "dog"}, {"cat", "dog", "eel"}, {"train", "bus", "car"})


@pytest.mark.parametrize("place", ["", "train", "test"])
def test_an_image_beside_the_folders_of_the_classes_has_no_label(tmp_path: Path, place: str) -> None:
    for label in ("cat", "dog"):
        for part in ("train", "test") if place else ("",):
            save_image(tmp_path / part / label / "a.png")
    save_image(tmp_path / place / ".hidden.png")
    write(tmp_path / place / "notes.txt", "no image")
    assert read_data(tmp_path).classes == ("cat", "dog")
    stray = tmp_path / place / "a.JPG"
    save_image(stray)
    with pytest.raises(DataError, match=f"^{stray}: has no label, because it lies beside the folders of the classes"):
        read_data(tmp_path)


@pytest.mark.parametrize(("name", "depth"), [("a.png", 16), ("a.tif", 16), ("a.pgm", 16), ("a.tif", 12)])
def test_deep_pixels_become_bytes(tmp_path: Path, name: str, depth: int) -> None:
    pixels = np.array([[0, 0x1234, 0x8000, 0xFFFF]], np.uint16)
    path = tmp_path / name
    if name == "a.pgm":
        path.write_bytes(b"P5 4 1 65535\n" + pixels.astype(">u2").tobytes())
    elif depth == 12:
        path.write_bytes(tiff(12, bytes.fromhex("000123800fff")))
    else:
        Image.fromarray(pixels).save(path)
    assert read_image(path).ravel().tolist() == [0, 0x12, 0x80, 0xFF]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_of_no_known_range_are_refused(folder: Path, dtype: Any) -> None:
    path = folder / "cat" / "deep.tif"
    Image.fromarray(np.arange(64, dtype=dtype).reshape(8, 8)).save(path)
    with pytest.raises(DataError, match=rf"{path}: not a readable image \(its pixels are .* of no known range\)"):
        read_data(folder)


def test_one_colour_image_makes_all_of_them_rgb(folder: Path) -> None:
    save_image(folder / "dog" / "9.png", value=(1, 2, 3))
    data = read_data(folder)
    assert data.input_shape == (3, 8, 8)
    assert data.x[0, 0, 0].tolist() == [10, 10, 10]
    assert data.x[-1, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("sizes", "image_size", "expected"),
    [
        ([(28, 28)], None, (28, 28)),
        ([(64, 64)], None, (32, 32)),
        ([(64, 64)], 48, (48, 48)),
        ([(20, 40)], None, (20, 40)),
        ([(64, 96)], None, (32, 48)),
        ([(64, 96), (128, 192)], None, (32, 48)),
        ([(10, 500)], None, (10, 224)),
        ([(8, 9), (20, 20)], None, (32, 32)),
        ([(8, 9), (20, 20)], 16, (16, 16)),
        ([(300, 224), (224, 400)], 224, (224, 224)),
    ],
)
def test_images_are_brought_to_one_size_by_the_rule(
    tmp_path: Path, sizes: list[tuple[int, int]], image_size: int | None, expected: tuple[int, int]
) -> None:
    for number, size in enumerate([*sizes, sizes[-1]]):
        save_image(tmp_path / "ab"[number % 2] / f"{number}.png", size, value=70 + number)
    data = read_data(tmp_path, image_size=image_size)
    assert data.x.shape[1:3] == expected
    assert all(len(np.unique(image)) == 1 for image in data.x)


def test_arrays_follow_the_same_rule() -> None:
    assert random_images((6, 64, 96)).x.shape == (6, 32, 48, 1)
    assert random_images((6, 64, 96, 3), image_size=64).x.shape == (6, 64, 96, 3)
    x = np.random.default_rng(0).random((6, 64, 64), dtype=np.float32)
    assert data_from_arrays(x, [0, 1] * 3).x.dtype == np.float32


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 90), st.integers(8, 90), st.integers(8, 60), st.integers(8, 60))
def test_covering_keeps_proportions_and_the_centre(height: int, width: int, to_height: int, to_width: int) -> None:
    """A slope across the image stays a slope: as steep as the one scale says, with its middle value in the middle."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    slopes = np.stack([rows - (height - 1) / 2, columns - (width - 1) / 2], axis=2)
    seen = covering(slopes, (to_height, to_width))
    assert seen.shape == (to_height, to_width, 2)
    scale = max(to_height / height, to_width / width)
    assert abs(seen.mean(axis=(0, 1))).max() < 0.01
    for axis in (0, 1):
        steps = np.diff(seen[..., axis], axis=axis)
        middle = steps[to_height // 2 - 1, to_width // 2 - 1]  # at the edges there is nothing to interpolate with
        assert middle == pytest.approx(1 / scale, rel=0.15)


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 400), st.integers(8, 400), st.integers(8, 224))
def test_shrinking_never_enlarges_or_exceeds_the_limits(height: int, width: int, limit: int) -> None:
    shape = shrunk(np.zeros((height, width, 1), np.uint8), limit).shape
    assert min(shape[:2]) == min(height, width, limit)
    assert max(shape[:2]) <= min(224, max(height, width))


@pytest.mark.parametrize("size", [7, 225, 32.0, "32", True, (32, 32)])
def test_an_image_size_out_of_range_is_refused(folder: Path, size: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"image_size must be an integer in 8 \.\. 224, got"):
        read_data(folder, image_size=size)


def test_a_small_image_is_named(folder: Path) -> None:
    save_image(folder / "dog" / "2.png", (7, 90))
    with pytest.raises(DataError, match=f"{folder}/dog/2.png: has 7 x 90 pixels, needs at least 8 x 8"):
        read_data(folder)
    with pytest.raises(DataError, match="arrays: images have 7 x 9 pixels, need at least 8 x 8"):
        random_images((4, 7, 9))


def test_an_image_of_more_pixels_than_the_cap_is_not_unpacked(folder: Path) -> None:
    save_image(folder / "dog" / "2.png", (30, 30))
    with pytest.raises(DataError, match=rf"{folder}/dog/2.png: .*\(30 x 30 pixels exceed the limit of 899\)"):
        read_data(folder, pixel_cap=899)
    assert read_data(folder, pixel_cap=900).ways == 2
    with pytest.raises(ConfigurationError, match="pixel_cap must be an integer >= 1, got 0"):
        read_data(folder, pixel_cap=0)
    with pytest.raises(ConfigurationError, match="pixel_cap must be at most 89478485, got 89478486"):
        read_data(folder, pixel_cap=PIXEL_CAP + 1)


def test_a_decompression_bomb_is_not_unpacked(folder: Path) -> None:
    path = folder / "dog" / "2.png"
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 12_000, 12_000)  # the header's width and height
    content[29:33] = struct.pack(">I", zipfile.crc32(bytes(content[12:29])))
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{path}: not a readable image \(Image size \(144000000 pixels\) exceeds"):
        read_data(folder)


def test_folders_that_cannot_serve_are_refused(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: has no sub-folders; it needs one for each class"):
        read_data(tmp_path / "empty")
    (folder / "bird").mkdir()
    with pytest.raises(DataError, match="bird: has no images"):
        read_data(folder)
    save_image(tmp_path / "single" / "cat" / "a.png")
    with pytest.raises(DataError, match=r"must have 2 to 1000 classes, has 1 \('cat'\)"):
        read_data(tmp_path / "single")
    (tmp_path / "parts" / "test").mkdir(parents=True)
    for label in "ab":
        save_image(tmp_path / "parts" / "train" / label / "a.png")
    with pytest.raises(DataError, match="test: has no sub-folders"):
        read_data(tmp_path / "parts")


def test_a_corrupt_image_is_named(folder: Path) -> None:
    path = folder / "cat" / "3.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=f"{path}: not a readable image"):
        read_data(folder)


def test_links_that_leave_the_folder_or_lead_nowhere_are_refused(folder: Path, tmp_path: Path) -> None:
    save_image(tmp_path / "secret.png")
    link = folder / "cat" / "link.png"
    for target, message in (
        (tmp_path / "secret.png", "is a link that leaves"),
        (folder / "cat" / "none.png", "not a readable file"),
        (link, "cannot be followed|not a readable file"),
    ):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        with pytest.raises(DataError, match=f"{link}: ({message})"):
            read_data(folder)


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "cat" / "pipe.png")
    with pytest.raises(DataError, match=r"pipe.png: is no regular file"):
        read_data(folder)


# --- Data that changes during a run -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("what", "message"), [("vanish", "has vanished"), ("change", "has changed")])
def test_a_file_that_changes_between_listing_and_reading_is_named(
    folder: Path, what: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = folder / "dog" / "4.png"

    def read_and_disturb(path: Path, pixel_cap: int) -> NDArray[np.uint8]:
        if path.name == "0.png":
            victim.unlink(missing_ok=True)
            if what == "change":
                save_image(victim, (9, 9))
        return read_image(path, pixel_cap)

    monkeypatch.setattr(rlnas.folder_data, "read_image", read_and_disturb)
    with pytest.raises(DataError, match=f"{victim}: {message} since it was listed"):
        read_data(folder)


def test_a_folder_that_changes_after_reading_is_noticed(folder: Path) -> None:
    data = read_data(folder)
    data.require_unchanged()
    save_image(folder / "cat" / "new.png")
    with pytest.raises(DataError, match=r"cat/new.png: has appeared since the folder was listed"):
        data.require_unchanged()
    (folder / "cat" / "new.png").unlink()
    data.require_unchanged()
    path = folder / "dog" / "1.png"
    os.utime(path, ns=(0, 0))
    with pytest.raises(DataError, match=f"{path}: has changed since it was listed"):
        data.require_unchanged()
    path.unlink()
    with pytest.raises(DataError, match=f"{path}: has vanished since it was listed"):
        data.require_unchanged()


def test_a_table_that_changes_after_reading_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a,y\n1,0\n2,1\n")
    data = read_data(path)
    data.require_unchanged()
    write(path, "a,y\n1,0\n2,1\n3,1\n")
    with pytest.raises(DataError, match=f"{path}: has changed"):
        data.require_unchanged()
    data_from_arrays(np.zeros((2, 1)), [0, 1]).require_unchanged()  # arrays have no files to change


# --- .npz files -------------------------------------------------------------------------------------------------------


def test_an_npz_of_images_keeps_its_official_split(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (30, 8, 9, 3), dtype=np.uint8)
    y = np.arange(30) % 3
    np.savez(tmp_path / "a.npz", x_train=x[:20], y_train=y[:20], x_test=x[20:], y_test=y[20:])
    data = read_data(tmp_path / "a.npz")
    assert (data.classes, data.input_shape) == (("0", "1", "2"), (3, 8, 9))
    assert data.test is not None
    assert digest_of_rows(data.x[data.test]) == digest_of_rows(x[20:])
    home = {image.tobytes(): label for image, label in zip(x, y.tolist(), strict=True)}
    assert [home[image.tobytes()] for image in data.x] == data.y.tolist()


def test_an_npz_may_hold_features(tmp_path: Path) -> None:
    x, y = load_wine(return_X_y=True)
    np.savez(tmp_path / "a.npz", x=x, y=np.array(["red", "white", "rose"])[y])
    data = read_data(tmp_path / "a.npz")
    assert (data.kind, data.classes, data.input_shape) == ("features", ("red", "rose", "white"), (13, 1, 1))
    np.testing.assert_allclose(data.x, x, rtol=1e-6)
    assert data.y.tolist() == [(0, 2, 1)[label] for label in y]


def test_an_official_split_by_classes_is_left_out(tmp_path: Path) -> None:
    images = np.zeros((4, 5, 8, 8), np.uint8)
    np.savez(tmp_path / "a.npz", images=images, split=[0, 0, 1, 1])
    data = read_data(tmp_path / "a.npz")
    assert (data.ways, data.test) == (4, None)
    x, y = np.zeros((8, 3)), np.arange(8) // 2
    np.savez(tmp_path / "a.npz", x=x, y=y, split=y // 2)
    assert read_data(tmp_path / "a.npz").test is None


@pytest.mark.parametrize("shape", [(8, 8), (3,)])
def test_a_class_that_only_x_test_has_is_named(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x = np.zeros((4, *shape), np.uint8)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=["Cat", "Dog"] * 2, x_test=x, y_test=["cat", "dog"] * 2)
    with pytest.raises(DataError, match="class 'cat' has no example outside the official test part"):
        read_data(tmp_path / "a.npz")


@pytest.mark.parametrize("shape", [(8, 8), (3,)])
def test_the_row_of_an_npz_that_has_no_label_is_named(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((6, *shape), np.uint8), y=["a", "b", "a", "b", "", "a"])
    with pytest.raises(DataError, match=f"^{tmp_path}/a.npz: y: row 4 has no label"):
        read_data(tmp_path / "a.npz")


def test_a_long_reason_to_refuse_an_npz_is_one_line(tmp_path: Path) -> None:
    fields = [(f"field{number}", "f4") for number in range(2000)]
    np.savez(tmp_path / "a.npz", x=np.zeros(2, fields), y=[0, 1])
    with pytest.raises(DataError, match=f"{tmp_path}/a.npz: x cannot be read") as caught:
        read_data(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("member", ["../x.npy", "/x.npy", "a/../../x.npy", "..\\x.npy", "C:\\x.npy", "C:x.npy"])
def test_an_npz_with_a_member_that_would_leave_it_is_refused(tmp_path: Path, member: str) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((6, 8, 8), np.uint8), y=np.arange(6) % 2)
    assert read_data(path).ways == 2
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, "harm")
    with pytest.raises(DataError, match=rf"{path}: not a readable .npz file \(its member .* would leave the archive"):
        read_data(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz"]


def test_an_npz_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((6, 80, 80), np.uint8), y=np.arange(6) % 2)
    monkeypatch.setattr("rlnas.image_files.BYTES_CAP", 38_000)
    with pytest.raises(DataError, match=r"it unpacks to 38.* bytes, more than the limit of 38000"):
        read_data(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((4, 3))}, "has x but not its labels y"),
        ({"x": np.array([[0, 1], [2, np.nan]]), "y": [0, 1]}, "features must be finite, found nan in row 1, column 1"),
        ({"x": np.full((4, 8, 8), np.nan), "y": [0, 1] * 2}, "x: pixels must be finite, found NaN"),
        ({"x": np.zeros((4, 8, 8)), "y": [0] * 4}, "needs at least two classes, has 1"),
        ({"z": np.zeros((4, 8, 8))}, "has neither images nor x"),
    ],
)
def test_an_npz_that_cannot_serve_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=f"{tmp_path}/a.npz.*: {message}"):
        read_data(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "A.TGZ"])
def test_archives_are_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, "")
    with pytest.raises(DataError, match=f"{name}: archives are not read; unpack it and give the folder"):
        read_data(tmp_path / name)


def test_what_is_no_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mnits: no such file or folder, nor is it a set of torchvision \(.*mnist"):
        read_data(tmp_path / "mnits")
    with pytest.raises(DataError, match=r"a.txt: is neither a folder nor a .npz, .csv or .csv.gz file"):
        read_data(write(tmp_path / "a.txt", "hello"))
    for name in ("a.csv", "a.csv.gz", "a.npz"):
        with pytest.raises(DataError, match=f"{name}: not a readable file"):
            read_data(tmp_path / name)
    with pytest.raises(DataError, match="no such file or folder"):
        read_data("x" * 5000)


@pytest.mark.parametrize("source", ["~nobodyxyz/data", "a\0b", "a\0b.csv", "a\0b.npz", "\ud800"])
def test_a_path_that_leads_nowhere_is_refused(source: str) -> None:
    with pytest.raises(DataError, match=f"^{source}: cannot be followed"):
        read_data(source)
    with pytest.raises(DataError, match=f"^{source}: cannot be followed"):
        parse_tasks(f"folder:{source}:val")


# --- Tables -----------------------------------------------------------------------------------------------------------

TABLE = "width,kind,height\n1.5,b,2\n-3,a,1e3\n 4 ,b,0\n"


@pytest.mark.parametrize(("delimiter", "packed"), [(",", False), (";", False), ("\t", True)])
def test_a_table_has_features_and_a_column_of_labels(tmp_path: Path, delimiter: str, packed: bool) -> None:
    path = tmp_path / ("a.csv.gz" if packed else "a.CSV")
    text = ("\ufeff" + TABLE.replace(",", delimiter)).encode()
    path.write_bytes(gzip.compress(text) if packed else text)
    data = read_data(path, label="kind")
    assert (data.kind, data.classes, data.input_shape) == ("features", ("a", "b"), (2, 1, 1))
    assert data.x.tolist() == [[1.5, 2], [-3, 1000], [4, 0]]
    assert data.y.tolist() == [1, 0, 1]


@pytest.mark.parametrize("name", ["label", "Class", "TARGET", "y"])
def test_the_column_of_labels_is_known_by_its_name(tmp_path: Path, name: str) -> None:
    assert read_data(write(tmp_path / "a.csv", TABLE.replace("kind", name))).classes == ("a", "b")


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_table_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, draw: st.DataObject) -> None:
    count, features = draw.draw(st.integers(2, 6)), draw.draw(st.integers(1, 4))
    number = st.floats(allow_nan=False, allow_infinity=False, width=32)
    x = draw.draw(st.lists(st.lists(number, min_size=features, max_size=features), min_size=count, max_size=count))
    place = draw.draw(st.integers(0, features))
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    names = [f"f{k}" for k in range(features)]
    lines = [[*names[:place], "y", *names[place:]]]
    lines += [[*map(repr, row[:place]), str(k % 2), *map(repr, row[place:])] for k, row in enumerate(x)]
    path.write_text("\n".join(",".join(line) for line in lines))
    data = read_data(path)
    np.testing.assert_array_equal(data.x, np.array(x, np.float32))
    assert data.y.tolist() == [k % 2 for k in range(count)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; its first line must name the columns"),
        ("a,y\n", "has no line below the names of its columns"),
        ("1,2\n3,4\n", r"its first line must name the columns, but holds numbers \(1, ...\)"),
        ("a,b\n1,2\n", r"no column is called .*; label must name the one that does \(columns: a, b\)"),
        ("a,y,class\n1,2,3\n", "columns y and class may hold the labels; label must name"),
        ("a,a,y\n1,2,3\n", "has 2 columns called 'a'"),
        (",a,y\n0,1,2\n", "column 1 has no name"),
        ("y\n1\n", "must have 1 to 10000 columns besides 'y', has 0"),
        ("a,y\n1,0\n2\n", "line 3 has 1 values, the first line names 2 columns"),
        ("a,y\n1,0\n\n2,\n", "line 4 has no label in column 'y'"),
        ("a,b,y\n1,2,0\n1,,1\n", "line 3 has no value in column 'b'"),
        ("a,b,y\n1,2,0\n1,NaN,1\n", "line 3 has no value in column 'b'"),
        ("a,b,y\n1,?,0\n", "line 2 has no value in column 'b'"),
        ("a,b,y\n1,Paris,0\n", "line 2 has 'Paris' in column 'b', which must be numbers"),
        ("a,b,y\n1,1_000,0\n", "line 2 has '1_000' in column 'b', which must be numbers"),
        ('"a\n(cm)",b\n1,2\n', r"no column is called .* \(columns: a \(cm\), b\)"),
        ("a,b,y\n1,inf,0\n", "line 2 has 'inf' in column 'b', which must be finite"),
        ("a,b,y\n1,-nan,0\n", "line 2 has '-nan' in column 'b', which must be finite"),
        ("a,b,y\n1,-1e300,0\n", "line 2 has '-1e300' in column 'b', which must be finite in 32 bits"),
        ("a,y\n1,0\n2,0\n", r"must have 2 to 1000 classes, has 1 \('0'\)"),
        ("a,y\n" + "".join(f"1,{k}\n" for k in range(1001)), "must have 2 to 1000 classes, has 1001"),
    ],
)
def test_a_table_that_cannot_serve_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "a.csv", text)
    with pytest.raises(DataError, match=f"^{path}: {message}") as caught:
        read_data(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"a,y\n\xff,1\n", b"\x1f\x8b\x08\x00", b"a,y\n" + b"1" * 200_000 + b",1\n"])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / ("a.csv.gz" if content[:1] == b"\x1f" else "a.csv")
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path}: not a readable table"):
        read_data(path)


def test_names_of_columns_may_have_line_breaks(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", '"width\n(cm)","kind\nof pet"\n1,cat\n2,dog\n')
    assert read_data(path, label="kind of pet").classes == ("cat", "dog")


@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
@pytest.mark.parametrize("text", ["a,y\n" + 400_000 * "1,", "a,y\n" + 100_000 * '"\n",', 400_000 * "a,"])
def test_an_enormous_line_is_not_read(tmp_path: Path, ending: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlnas.csv_data.LINE_CAP", 50_000)
    path = tmp_path / f"a{ending}"
    path.write_bytes(gzip.compress(text.encode()) if ending == ".csv.gz" else text.encode())
    with pytest.raises(DataError, match=rf"^{path}: line \d+ has more than 50000 characters"):
        read_data(path)


def test_a_table_that_unpacks_to_too_much_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"a,y\n" + 999 * b"1,0\n2,1\n"))
    monkeypatch.setattr("rlnas.csv_data.TEXT_CAP", 7996)
    assert len(read_data(path).x) == 1998
    monkeypatch.setattr("rlnas.csv_data.TEXT_CAP", 7995)
    with pytest.raises(DataError, match=f"^{path}: has more than 7995 characters; a .npz file may hold more"):
        read_data(path)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.text('a,;y"\n\r 0.1\0\x85\u2028', max_size=40).map(str.encode))
@example(b'a,y\n"1,0\n')
@example(b'"a\nb","c\nd"\n1,2\n')
@example('"a\u2028b",c\n1,2\n'.encode())
@example(b"a,y\r1,0\r2,1\r")
def test_any_bytes_are_a_table_or_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.csv"
    path.write_bytes(content)
    refused = ""
    try:
        assert read_data(path).kind == "features"
    except DataError as error:
        refused = str(error)
    assert refused == "" or refused.startswith(f"{path}: ")
    assert len(refused.splitlines()) <= 1


def test_labels_are_of_tables_alone(tmp_path: Path, folder: Path) -> None:
    path = write(tmp_path / "a.csv", TABLE)
    with pytest.raises(UnknownNameError, match=f"unknown label column of {path} 'knid'; did you mean 'kind'"):
        read_data(path, label="knid")
    with pytest.raises(ConfigurationError, match=r"label names a column of a .csv file"):
        read_data(folder, label="kind")
    with pytest.raises(ConfigurationError, match=r"label names a column of a .csv file, mnist is none"):
        read_data("mnist", label="kind")
    with pytest.raises(ConfigurationError, match=f"image_size is of images, {path} has none; got 32"):
        read_data(path, label="kind", image_size=32)


# --- Arrays -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([10, 9, 10], ("9", "10")),
        ([1.0, 0.0, 1.0], ("0", "1")),
        ([True, False, True], ("False", "True")),
        (["b", "a", "b"], ("a", "b")),
        (["9", "09", "9"], ("09", "9")),
        (["9" * 5000, "10", "9" * 5000], ("10", "9" * 5000)),
        ([b"b", b"a", b"b"], ("a", "b")),
        (np.array(["b", "a", "b"], object), ("a", "b")),
        (np.array([10, 9, 10], object), ("9", "10")),
    ],
)
def test_labels_may_be_of_any_kind(labels: Any, classes: tuple[str, ...]) -> None:
    data = data_from_arrays(np.zeros((3, 2)), labels)
    assert data.classes == classes
    assert data.y.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros(4), [0, 1] * 2, r"x must be features \(N, F\) or images .* got shape \(4,\)"),
        (np.zeros((4, 0)), [0, 1] * 2, r"features must have shape \(N, F\) with F in 1 .. 10000, got \(4, 0\)"),
        (np.zeros((4, 10_001)), [0, 1] * 2, "F in 1 .. 10000"),
        (np.array([["a"], ["b"]]), [0, 1], "features must be numbers, got <U1"),
        (np.array([["a"], ["b"]], object), [0, 1], "features must be numbers"),
        (np.array([[1], [None]], object), [0, 1], "found None in row 1, column 0"),
        (np.array([[1], [1e39]]), [0, 1], r"features must be finite, found 1e\+39 in row 1, column 0"),
        (np.zeros((4, 8, 8, 2)), [0, 1] * 2, "1 or 3 channels"),
        (np.full((4, 8, 8), -1), [0, 1] * 2, r"pixels must lie in 0 \.\. 255"),
        (
            np.where(np.arange(4)[:, None, None] == 2, np.inf, np.zeros((4, 8, 8))),
            [0, 1] * 2,
            "found NaN or infinity in image 2",
        ),
        (np.zeros((4, 2)), [0, 1], "must have a label for each of 4 examples, has 2"),
        (np.zeros((4, 2)), [[0], [1]] * 2, r"labels must be numbers or texts of shape \(N,\), got int64 \(4, 1\)"),
        (np.zeros((2, 2)), [0, np.nan], "row 1 has no label"),
        (np.zeros((2, 2)), np.array(["a", None], object), "row 1 has no label"),
        (np.zeros((2, 2)), ["a", ""], "row 1 has no label"),
        (
            np.zeros((2, 2)),
            np.array(["a", np.zeros(2)], object),
            "labels must be numbers or texts, got ndarray in row 1",
        ),
        (np.zeros((2, 2)), [0, 0.5], r"labels must name classes, got the number 0.5 in row 1"),
        (np.zeros((2, 2)), [0, np.inf], "labels must name classes, got the number inf in row 1"),
        (np.zeros((2, 2)), [3, 3], r"must have 2 to 1000 classes, has 1 \('3'\)"),
        (np.zeros((1001, 2)), range(1001), "must have 2 to 1000 classes, has 1001"),
    ],
)
def test_arrays_that_cannot_serve_are_refused(x: Any, y: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"^arrays: .*{message}"):
        data_from_arrays(x, y)


def test_the_missing_label_of_pandas_is_refused() -> None:
    missing = pytest.importorskip("pandas").NA
    with pytest.raises(DataError, match="labels must be numbers or texts, got NAType in row 1"):
        data_from_arrays(np.zeros((2, 2)), np.array(["a", missing], object))


def test_an_official_test_part_of_arrays_must_fit() -> None:
    x, y = np.zeros((4, 2)), [0, 1, 0, 1]
    assert data_from_arrays(x, y, test=[False] * 4).test is None
    with pytest.raises(DataError, match=r"official test part must have shape \(4,\), got \(3,\)"):
        data_from_arrays(x, y, test=[True, False, False])
    with pytest.raises(DataError, match="class '0' has no example outside the official test part"):
        data_from_arrays(x, y, test=[True] * 4)
    with pytest.raises(DataError, match="class '1' has no example outside the official test part"):
        data_from_arrays(x, y, test=[False, True] * 2)


def test_the_digest_follows_from_the_content(folder: Path, tmp_path: Path) -> None:
    data = read_data(folder)
    folder.rename(tmp_path / "elsewhere")
    assert read_data(tmp_path / "elsewhere").digest == data.digest
    x, y = data.x.copy(), data.y.astype(np.int64)
    digests = {data_from_arrays(x, y, "one").digest, data_from_arrays(x, y, "other").digest}
    assert len(digests) == 1
    digests |= {data_from_arrays(x, y + 1).digest, data_from_arrays(x, y[::-1]).digest, data.digest}
    x[3, 2, 1] += 1
    digests |= {data_from_arrays(x, y).digest, data_from_arrays(x, y, test=np.arange(10) % 5 == 0).digest}
    assert len(digests) == 6


# --- Division ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(3, 40), min_size=2, max_size=6),
    official=st.booleans(),
    validation=st.floats(0.01, 0.6),
    test=st.floats(0, 0.39),
    seed=st.integers(0, 2**40),
)
def test_a_division_is_stratified_disjoint_and_complete(
    counts: list[int], official: bool, validation: float, test: float, seed: int
) -> None:
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    part = np.zeros(len(y), bool)
    for label in range(len(counts)):
        part[np.flatnonzero(y == label)[:1]] = official
    data = data_from_arrays(np.arange(len(y))[:, None], y, test=part)
    division = divide(data, seed=seed, validation=validation, test=test)
    parts = [division.train, division.validation, division.test]
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(y)))
    assert all((np.diff(rows) > 0).all() and rows.dtype == np.int64 for rows in parts)
    if official:
        assert division.test.tolist() == np.flatnonzero(part).tolist()
    for label, count in enumerate(counts):
        train, held, tested = (int((y[rows] == label).sum()) for rows in parts)
        free = count - official
        assert min(train, held) >= 1
        assert train >= 2 or free <= 2 + (test > 0 and not official)
        assert official or (tested >= 1) == (test > 0)
        assert held <= max(1, round(free * validation))
        if free * (1 - validation - test) >= 3:
            assert held == max(1, round(free * validation))
    again = divide(data, seed=seed, validation=validation, test=test)
    assert all(np.array_equal(a, b) for a, b in zip(parts, (again.train, again.validation, again.test), strict=True))


def test_another_seed_divides_otherwise() -> None:
    data = random_images((60, 8, 8))
    assert not np.array_equal(divide(data, seed=0).test, divide(data, seed=1).test)


def test_a_class_with_too_few_examples_is_named() -> None:
    x, y = np.zeros((12, 2)), ["many"] * 10 + ["few"] * 2
    with pytest.raises(DataError, match=r"class 'few' has 2 examples, needs at least 3 .*train, validation and test"):
        divide(data_from_arrays(x, y, "mine"))
    assert len(divide(data_from_arrays(x, y), test=0).validation) == 3
    official = np.arange(12) % 5 == 1
    with pytest.raises(DataError, match="class 'few' has 1 examples outside the official test part, needs at least 2"):
        divide(data_from_arrays(x, y, test=official))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 0}, "validation must be a fraction above 0 and below 1, got 0"),
        ({"validation": float("nan")}, "validation must be a fraction"),
        ({"test": 1.0}, "test must be a fraction at least 0 and below 1, got 1.0"),
        ({"test": -0.1}, "test must be a fraction"),
        ({"validation": 0.5, "test": 0.5}, "must leave something to train on, got 0.5 and 0.5"),
        ({"seed": -1}, "seed must be an integer >= 0"),
    ],
)
def test_fractions_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        divide(random_images((20, 8, 8)), **options)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=8), st.integers(0, 2**32))
def test_every_beginning_of_a_stratified_order_is_stratified(counts: list[int], seed: int) -> None:
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    order = stratified_order(y, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(y)))
    for size in range(len(counts), len(y) + 1):
        found = np.bincount(y[order[:size]], minlength=len(counts))
        assert found.min() >= 1
        assert np.abs(found - size * np.array(counts) / len(y)).max() <= len(counts)


# --- What networks see ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.int64, 255), (np.float64, 1), (np.float32, 16)])
def test_images_of_every_kind_are_shown_in_the_unit_range(dtype: Any, white: int) -> None:
    x = (np.linspace(0, 1, 4 * 8 * 9).reshape(4, 8, 9) * white).astype(dtype)
    shown = preprocessing_of(data_from_arrays(x, [0, 1] * 2), np.arange(4))(x)
    assert (shown.dtype, shown.shape) == (np.float32, (4, 1, 8, 9))
    np.testing.assert_allclose(shown[:, 0], x / white, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64])
def test_a_number_means_what_it_meant_in_training(dtype: Any) -> None:
    x = np.arange(4 * 64).reshape(4, 8, 8) % 250
    show = preprocessing_of(data_from_arrays(x.astype(dtype), [0, 1] * 2), np.arange(4))
    if dtype == np.float64:
        with pytest.raises(DataError, match=r"must be floats, as those trained on \(up to 249\), got uint8"):
            show(x.astype(np.uint8))
    else:
        for same in (x.astype(np.uint8), x.astype(np.int32), x / 255):
            np.testing.assert_allclose(show(same), show(x.astype(dtype)), atol=1e-6)
        with pytest.raises(DataError, match=r"must be bytes, as those trained on, or floats in 0 .. 1; found 249"):
            show(x.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.bool_])
def test_images_of_0_and_1_are_the_same_in_every_dtype(dtype: Any) -> None:
    x = np.random.default_rng(0).integers(0, 2, (4, 8, 8))
    show = preprocessing_of(data_from_arrays(x.astype(dtype), [0, 1] * 2), np.arange(4))
    for same in (np.bool_, np.float32) if dtype == np.bool_ else (np.bool_, np.uint8, np.int32, np.float32):
        np.testing.assert_array_equal(show(x.astype(same))[:, 0], x)
    if dtype != np.bool_:
        with pytest.raises(DataError, match="images must be of 0 and 1, as those trained on; found 255"):
            show(np.uint8(255) * x.astype(np.uint8))


def test_dark_images_are_not_taken_for_images_of_0_and_1() -> None:
    x = np.zeros((4, 8, 8), np.uint8)
    x[3, 0, 0] = 51
    show = preprocessing_of(data_from_arrays(x, [0, 1] * 2), np.arange(3))
    assert show(x)[3].max() == pytest.approx(0.2)


def test_colours_become_the_first_axis() -> None:
    data = random_images((4, 8, 9, 3))
    shown = preprocessing_of(data, np.arange(4))(data.x)
    np.testing.assert_array_equal(shown[2, 1], data.x[2, :, :, 1] / np.float32(255))


def test_new_images_are_brought_to_the_form_of_those_trained_on() -> None:
    show = preprocessing_of(random_images((4, 8, 9, 3)), np.arange(4))
    grey = np.full((2, 16, 18), 51, np.uint8)
    np.testing.assert_allclose(show(grey), np.full((2, 3, 8, 9), 0.2), atol=1e-6)
    np.testing.assert_allclose(show(np.full((2, 30, 30, 3), 0.3)), np.full((2, 3, 8, 9), 0.3), atol=1e-6)
    with pytest.raises(DataError, match="images must be grey"):
        preprocessing_of(random_images((4, 8, 9)), np.arange(4))(np.zeros((1, 8, 9, 3)))


def test_features_are_standardised_by_the_train_part_alone() -> None:
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(5, 3, 40), np.full(40, 0.1), rng.normal(-1e4, 1e-2, 40)]).astype(np.float32)
    x[30:, 0] += 1000
    x[30:, 1] = 7
    show = preprocessing_of(data_from_arrays(x, np.arange(40) % 2), np.arange(30))
    shown = show(x[:30])
    assert shown.shape == (30, 3, 1, 1)
    np.testing.assert_allclose(shown.mean(0).ravel(), 0, atol=1e-6)
    np.testing.assert_allclose(shown.std(0).ravel(), [1, 0, 1], atol=1e-5)
    held = show(x[30:])
    assert (held[:, 1] == 0).all()  # a column that told nothing in training tells nothing later
    assert held[:, 0].min() > 100


def test_preprocessing_is_kept_as_json() -> None:
    x, y = load_wine(return_X_y=True)
    wine = data_from_arrays(x, y)
    for data in (wine, random_images((4, 8, 9, 3)), data_from_arrays(load_digits().images, load_digits().target)):
        show = preprocessing_of(data, np.arange(4))
        again = Preprocessing.from_json(json.loads(json.dumps(show.to_json())))
        np.testing.assert_array_equal(again(data.x), show(data.x))
    with pytest.raises(DataError, match=r"features must have shape \(N, 13\), got \(2, 12\)"):
        preprocessing_of(wine, np.arange(9))(x[:2, :12])


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "text"},
        {"input_shape": [13, 1]},
        {"input_shape": [0, 1, 1]},
        {"mean": [0.0]},
        {"deviation": [float("nan")] * 13},
        {"white": None},
        {"white": 0},
        {"deviation": [-1.0] * 13},
    ],
)
def test_a_forged_description_of_preprocessing_is_refused(change: dict[str, Any]) -> None:
    x, y = load_wine(return_X_y=True)
    description = preprocessing_of(data_from_arrays(x, y), np.arange(9)).to_json()
    with pytest.raises(DataError, match="not a description of preprocessing"):
        Preprocessing.from_json({**description, **change})


# --- Search tasks -----------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 5), st.integers(3, 30), st.booleans(), st.integers(0, 2**32), st.data())
def test_a_search_task_never_shows_the_test_part(
    ways: int, per_class: int, official: bool, seed: int, draw: st.DataObject
) -> None:
    count = ways * per_class
    x = np.zeros((count, 8, 8), np.uint8)
    x[:, 0, 0], x[:, 0, 1] = np.arange(count) % 256, np.arange(count) // 256  # every image is told by its first pixels
    test = np.arange(count) < ways if official else None
    data = data_from_arrays(x, np.arange(count) % ways, test=test)
    division = divide(data, seed=seed)
    examples = draw.draw(st.none() | st.integers(ways, count))
    task = search_task(data, division, examples, seed)
    first, second = (np.round(a[:, 0, 0, :2] * 255).astype(int) for a in (task.support_x, task.query_x))
    support, query = first @ [1, 256], second @ [1, 256]
    assert set(support) <= set(division.train)
    assert set(query) == set(division.validation)
    assert not (set(support) | set(query)) & set(division.test)
    np.testing.assert_array_equal(task.support_y, data.y[support])
    np.testing.assert_array_equal(task.query_y, data.y[query])
    assert len(set(support)) == len(support) == min(examples or count, len(division.train))
    assert task.ways == ways


@pytest.mark.parametrize("kind", ["bytes", "floats", "features"])
@pytest.mark.parametrize("official", [False, True])
def test_what_is_in_the_test_part_leaves_no_trace_in_a_search_task(kind: str, official: bool) -> None:
    x = np.random.default_rng(0).integers(0, 200, (60, 9) if kind == "features" else (60, 8, 9)).astype(np.float32)
    x = x.astype(np.uint8) if kind == "bytes" else x
    y, part = np.arange(60) % 3, np.arange(60) < 15 if official else None
    data = data_from_arrays(x, y, test=part)
    division = divide(data)
    changed = x.copy()
    changed[division.test] = 255
    other = data_from_arrays(changed, y, test=part)
    assert other.digest != data.digest
    assert search_task(other, divide(other), 20).digest == search_task(data, division, 20).digest


def test_a_search_task_of_fewer_examples_is_part_of_one_of_more() -> None:
    data = random_images((200, 8, 8), ways=4)
    division = divide(data)
    tasks = [search_task(data, division, examples) for examples in (4, 40, 100, None)]
    assert [task.name for task in tasks] == ["arrays:4/0", "arrays:40/0", "arrays:100/0", "arrays:all/0"]
    assert [task.shots for task in tasks] == [1, 10, 25, 30]
    for smaller, larger in pairwise(tasks):
        assert digest_of_rows(smaller.support_x) < digest_of_rows(larger.support_x)
        np.testing.assert_array_equal(smaller.query_x, larger.query_x)
    other = search_task(data, division, 40, seed=1)
    assert digest_of_rows(other.support_x) != digest_of_rows(tasks[1].support_x)
    np.testing.assert_array_equal(other.query_x, tasks[1].query_x)
    with pytest.raises(ConfigurationError, match="examples must be one for each of 4 classes at least, got 3"):
        search_task(data, division, 3)


def test_a_search_task_scores_on_no_more_rows_than_stated() -> None:
    y = np.arange(6000) % 5 % 4  # class 0 is twice as frequent as the others
    data = data_from_arrays(np.random.default_rng(0).random((6000, 2)), y)
    task = search_task(data, divide(data), 100)
    assert np.bincount(task.query_y).tolist() == [400, 200, 200, 200]
    assert len(task.query_y) == MAX_QUERIES
    assert np.abs(task.support_x).max() < 3  # standardised
    assert task.image_shape == (2, 1, 1)


def test_search_tasks_are_rebuilt_from_their_spec(folder: Path) -> None:
    source = UserSource(read_data(folder, image_size=8), (2, 4, 1000), seed=3, validation=0.25)
    assert source.splits == {"2": 1, "4": 1, "all": 1}
    spec = json.loads(json.dumps(source.spec()))
    again = source_from_spec(spec)
    assert again.spec() == spec
    for split in source.splits:
        assert again.task(split, 0).digest == source.task(split, 0).digest
        assert source.named(again.task(split, 0).name) is source.task(split, 0)
    save_image(folder / "cat" / "0.png", value=99)
    with pytest.raises(DataError, match=f"{folder}: its images are not those that the record was made with"):
        source_from_spec(spec)


def test_search_tasks_of_a_table_are_rebuilt_from_their_spec(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a,kind\n" + "".join(f"{k},{'uvw'[k % 3]}\n" for k in range(30)))
    source = UserSource(read_data(path, label="kind"), (5,))
    again = source_from_spec(json.loads(json.dumps(source.spec())))
    assert again.task("5", 0).digest == source.task("5", 0).digest


def test_search_tasks_are_asked_for_by_name(folder: Path) -> None:
    source, split = parse_tasks(f"user:{folder}:all", seed=1)
    assert source.task(split, 0).name == f"{folder}:all/0"
    with pytest.raises(ConfigurationError, match="user needs a path"):
        parse_tasks("user:all")
    with pytest.raises(UnknownNameError, match="unknown option of the task source user 'ways'"):
        parse_tasks(f"user:{folder}:all", ways=5)
    with pytest.raises(UnknownNameError, match="unknown split '7'"):
        parse_tasks(f"user:{folder}:7", examples=[2])
    with pytest.raises(UnknownNameError, match="unknown task source 'arrays'"):
        source_from_spec(UserSource(random_images((20, 8, 8))).spec())
    with pytest.raises(ConfigurationError, match="examples must have a number of examples for each split"):
        UserSource(random_images((20, 8, 8)), ())


# --- torchvision's sets -----------------------------------------------------------------------------------------------


def fake_set(kind: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Thirty random images, the last ten for testing, in the files of a set; published checksums are replaced."""
    rng = np.random.default_rng(0)
    colour = kind in ("cifar100", "svhn")
    x = rng.integers(0, 256, (30, 32, 32, 3) if colour else (30, 28, 28), dtype=np.uint8)
    y = np.arange(30) % 3
    halves = {"train": slice(0, 20), "test": slice(20, 30)}
    if kind == "cifar100":
        folder = root / "cifar-100-python"
        folder.mkdir(parents=True)
        for name, half in halves.items():
            rows = x[half].transpose(0, 3, 1, 2).reshape(-1, 3072)
            (folder / name).write_bytes(pickle.dumps({"data": rows, "fine_labels": y[half].tolist()}))
        (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": ["a", "b", "c"]}))
        sums = {f.name: hashlib.md5(f.read_bytes()).hexdigest() for f in folder.iterdir()}
        cifar = torchvision.datasets.CIFAR100
        monkeypatch.setattr(cifar, "train_list", [["train", sums["train"]]])
        monkeypatch.setattr(cifar, "test_list", [["test", sums["test"]]])
        monkeypatch.setattr(cifar, "meta", {**cifar.meta, "md5": sums["meta"]})
    elif kind == "svhn":
        root.mkdir(parents=True, exist_ok=True)
        listed = {}
        for name, half in halves.items():
            path = root / f"{name}_32x32.mat"
            savemat(path, {"X": x[half].transpose(1, 2, 3, 0), "y": np.where(y[half] == 0, 10, y[half])[:, None]})
            listed[name] = ["", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
        monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", listed)
    else:
        raw = root / {"mnist": "MNIST", "kmnist": "KMNIST"}[kind] / "raw"
        raw.mkdir(parents=True)
        for name, half in (("train", halves["train"]), ("t10k", halves["test"])):
            images, labels = x[half], y[half].astype(np.uint8)
            header = struct.pack(">4i", 2051, len(images), 28, 28)
            (raw / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
            (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, len(labels)) + labels.tobytes())
    return x.reshape(30, *x.shape[1:3], -1), y


@pytest.mark.parametrize("kind", ["mnist", "kmnist", "cifar100", "svhn"])
def test_a_set_of_torchvision_is_read_by_name(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = fake_set(kind, tmp_path, monkeypatch)
    data = read_data(kind, data=tmp_path)
    assert (data.name, data.classes, data.input_shape[1:]) == (kind, ("0", "1", "2"), x.shape[1:3])
    home = {image.tobytes(): (label, k >= 20) for k, (image, label) in enumerate(zip(x, y.tolist(), strict=True))}
    assert data.test is not None
    found = [home[image.tobytes()] for image in data.x]
    assert found == list(zip(data.y.tolist(), data.test.tolist(), strict=True))
    source = UserSource(data)
    assert source_from_spec(json.loads(json.dumps(source.spec()))).task("all", 0).digest == source.task("all", 0).digest
    assert parse_tasks(f"user:{kind}:all", data=tmp_path)[0].task("all", 0).digest == source.task("all", 0).digest


def test_a_set_that_is_not_there_is_not_downloaded_unasked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"mnist is not there .looked for {tmp_path}/MNIST.; --download fetches it"):
        read_data("mnist", data=tmp_path)


def test_a_folder_may_have_the_name_of_a_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for label in "ab":
        save_image(tmp_path / "mnist" / label / "a.png")
    monkeypatch.chdir(tmp_path)
    assert read_data("./mnist").classes == ("a", "b")


# --- Real data --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "shape", "sizes"),
    [
        ("cifar10/cifar10_6k.npz", (3, 32, 32), (4000, 1000, 1000)),
        ("sign_digits/sign_digits32.npz", (3, 32, 32), (1240, 411, 411)),
        ("spoken_digits/fsdd_logmel32.npz", (1, 32, 32), (1800, 600, 600)),
    ],
)
def test_real_sets_are_divided(file: str, shape: tuple[int, int, int], sizes: tuple[int, int, int]) -> None:
    path = Path(os.environ.get("RLNAS_DATA") or "none", file)
    if not path.is_file():
        pytest.skip(f"{file} is not there; RLNAS_DATA may name a folder that has it")
    data = read_data(path)
    division = divide(data)
    assert data.input_shape == shape
    assert (len(division.train), len(division.validation), len(division.test)) == sizes
