"""A user's own data, read once: labelled images or rows of features, as they came.

:func:`read_data` reads a folder of images, a ``.npz`` file, a ``.csv`` file or one of torchvision's sets;
:func:`data_from_arrays` takes arrays. What becomes of the data after that: :mod:`rlnas.data_division` divides it,
:mod:`rlnas.preprocessing` turns it into what networks see, :mod:`rlnas.user_source` makes tasks of it to search on.
"""

from __future__ import annotations

import hashlib
import operator
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from rlnas.csv_data import read_csv
from rlnas.data_checks import MAX_CLASSES, MAX_FEATURES, checked_features, numbered, tells_classes_apart
from rlnas.data_files import FileStamp
from rlnas.errors import ConfigurationError, DataError, at_least
from rlnas.folder_data import list_image_folder, read_image_folder
from rlnas.image_files import PIXEL_CAP, absolute, joined_npz, npz_arrays, read_npz
from rlnas.images import IMAGE_SIZES, ImageSet, Pixels, checked_pixels, shrunk, with_channels
from rlnas.torchvision_sets import TORCHVISION_SETS, read_torchvision

DEFAULT_IMAGE_SIZE = 32
"""The longest that the shorter side of an image stays, in pixels, unless the user says otherwise."""

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


@dataclass(frozen=True, eq=False)
class UserData:
    """Labelled images, all of one size, or rows of features.

    Args:
        name: what tasks and errors call it.
        classes: the classes' names, in the order of their labels: numbers ascend, texts are sorted.
        x: images as they came, uint8 or float32 of shape (N, H, W, C) with 1 or 3 channels; or features, float32 of
            shape (N, F).
        y: classes in 0 .. ways - 1, int64 of shape (N,).
        test: which rows are the official test part, of shape (N,); None where the data came without one.
        origin: the arguments of :func:`read_data` that read it, as JSON; None for arrays.
        files: the files it was read from, as they were then.

    Raises:
        DataError: if there are fewer than two classes or more than 1,000, a class has no row outside the official test
            part, or the arrays disagree in length.
    """

    name: str
    classes: tuple[str, ...]
    x: Pixels
    y: NDArray[np.int64]
    test: NDArray[np.bool_] | None = None
    origin: Mapping[str, Any] | None = None
    files: tuple[FileStamp, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not 2 <= len(self.classes) <= MAX_CLASSES:
            found = f" ({self.classes[0]!r})" if len(self.classes) == 1 else ""
            raise DataError(f"{self.name}: must have 2 to {MAX_CLASSES} classes, has {len(self.classes)}{found}")
        for what, array in (("labels", self.y), ("official test part", self.test)):
            if array is not None and array.shape != (len(self.x),):
                raise DataError(f"{self.name}: {what} must have shape ({len(self.x)},), got {array.shape}")
        learnable = self.y if self.test is None else self.y[~self.test]
        counts = np.bincount(learnable, minlength=len(self.classes))
        if (counts == 0).any():
            lacking = self.classes[int(counts.argmin())]
            where = "" if self.test is None else " outside the official test part"
            raise DataError(f"{self.name}: class {lacking!r} has no example{where}")

    @property
    def kind(self) -> str:
        """``images`` or ``features``."""
        return "features" if self.x.ndim == 2 else "images"

    @property
    def ways(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) as networks see it; F features are (F, 1, 1)."""
        if self.x.ndim == 2:
            return self.x.shape[1], 1, 1
        height, width, channels = self.x.shape[1:]
        return channels, height, width

    @cached_property
    def digest(self) -> str:
        """SHA-256 of classes, images or features, labels and official test part, in hexadecimal."""
        sha = hashlib.sha256(repr(self.classes).encode("utf-8", "backslashreplace"))
        for array in (self.x, self.y, self.test):
            if array is not None:
                sha.update(repr((array.shape, array.dtype.str)).encode())
                sha.update(np.ascontiguousarray(array).data)
        return sha.hexdigest()

    def require_unchanged(self) -> None:
        """Make sure that the files the data was read from are still there as they were.

        Raises:
            DataError: naming the first file that vanished, changed or appeared.
        """
        for file in self.files:
            file.require_unchanged()
        root = None if self.origin is None else Path(str(self.origin["source"]))
        if self.files and root is not None and root.is_dir():
            known = {file.path for file in self.files}
            for image in list_image_folder(root):
                if image.path not in known:
                    raise DataError(f"{image.path}: has appeared since the folder was listed")


def read_data(
    source: str | Path,
    *,
    image_size: int | None = None,
    label: str | None = None,
    pixel_cap: int = PIXEL_CAP,
    data: str | Path | None = None,
    download: bool = False,
) -> UserData:
    """A user's data.

    Images are brought to one size without distortion. One whose shorter side is longer than ``image_size`` is shrunk
    until it is that long (with antialiasing); smaller ones keep their size; of a longer side the middle 224 pixels are
    kept. If they then differ in size, of every image the centre square is kept, at ``image_size`` pixels. Images are
    RGB, unless all are grey.

    Args:
        source: a folder of images (see :func:`rlnas.folder_data.read_image_folder`); a ``.npz`` file as
            :func:`rlnas.image_files.read_npz` reads it, whose ``x`` may also be features, of shape (N, F); a ``.csv``
            or ``.csv.gz`` file of features (see :func:`rlnas.csv_data.read_csv`); or the name of one of
            :data:`~rlnas.torchvision_sets.TORCHVISION_SETS` (a folder of that name is ``./NAME``).
        image_size: the shorter side of larger images, 8 to 224 pixels; by default :data:`DEFAULT_IMAGE_SIZE`.
        label: of a ``.csv`` file the column of labels.
        pixel_cap: an image file of more pixels is refused before it is unpacked; 1 to :data:`PIXEL_CAP`.
        data: of a set of torchvision the folder that holds it, see
            :func:`~rlnas.torchvision_sets.read_torchvision`.
        download: whether torchvision may download its set.

    Returns:
        The data. An official validation part is not told from the training part. Where Omniglot or a ``split`` of a
        ``.npz`` file tells classes rather than images apart, as for few-shot learning, it is left out.

    Raises:
        ConfigurationError: if an option is not allowed.
        DataError: if the data cannot serve; the file or field is named.
    """
    size = _checked_image_size(image_size)
    if at_least("pixel_cap", pixel_cap, 1) > PIXEL_CAP:
        raise ConfigurationError(f"pixel_cap must be at most {PIXEL_CAP}, got {pixel_cap!r}")
    ending = str(source).lower()
    is_table = ending.endswith((".csv", ".csv.gz"))
    if label is not None and not is_table:
        raise ConfigurationError(f"label names a column of a .csv file, {source} is none; got {label!r}")
    if image_size is not None and is_table:
        raise ConfigurationError(f"image_size is of images, {source} has none; got {image_size!r}")
    of_kind = {"label": label} if is_table else {"image_size": size, "pixel_cap": pixel_cap}
    origin = {"source": str(source), **of_kind}
    if str(source) in TORCHVISION_SETS:
        if data is not None:
            origin["data"] = str(absolute(data))
        images = read_torchvision(str(source), data, None, download)
        return replace(_from_image_set(images, size, few_shot=True), origin=origin)
    path = absolute(source)
    origin["source"] = str(path)
    if os.path.isdir(path):
        x, labels, test, files = read_image_folder(path, size, pixel_cap)
        read = _labelled(str(path), x, np.array(labels), test)
        return replace(read, origin=origin, files=files)
    if ending.endswith(_ARCHIVES) and not is_table:
        raise DataError(f"{path}: archives are not read; unpack it and give the folder")
    if not is_table and not ending.endswith(".npz"):
        what = (
            "is neither a folder nor a .npz, .csv or .csv.gz file" if os.path.exists(path) else "no such file or folder"
        )
        raise DataError(f"{path}: {what}, nor is it a set of torchvision ({', '.join(TORCHVISION_SETS)})")
    file = FileStamp.of(path)
    if is_table:
        features, names = read_csv(path, label, MAX_FEATURES)
        read = _labelled(str(path), features, np.array(names))
    else:
        read = _read_npz(path, size)
    file.require_unchanged()
    return replace(read, origin=origin, files=(file,))


def data_from_arrays(
    x: Any, y: Any, name: str = "arrays", *, image_size: int | None = None, test: Any = None
) -> UserData:
    """Data that is in memory already.

    Args:
        x: images of shape (N, H, W) or (N, H, W, C) with 1 or 3 channels: integers in 0 .. 255, or floats in 0 .. 1 or
            0 .. 255; or features, of shape (N, F).
        y: labels, numbers or texts of shape (N,).
        name: what tasks and errors call the data.
        image_size: see :func:`read_data`.
        test: which rows are the official test part, booleans of shape (N,).

    Raises:
        ConfigurationError: if ``image_size`` is not allowed.
        DataError: if the arrays cannot serve.
    """
    size = _checked_image_size(image_size)
    x = np.asarray(x)
    if x.ndim == 2:
        x = checked_features(name, x)
    elif x.ndim in (3, 4):
        x = checked_images(name, x, size)
    else:
        raise DataError(f"{name}: x must be features (N, F) or images (N, H, W) or (N, H, W, C), got shape {x.shape}")
    return _labelled(name, x, np.asarray(y), None if test is None else np.asarray(test, dtype=np.bool_))


def _checked_image_size(image_size: int | None) -> int:
    if image_size is None:
        return DEFAULT_IMAGE_SIZE
    least, most = IMAGE_SIZES
    whole = operator.index(image_size) if isinstance(image_size, SupportsIndex) else 0
    if isinstance(image_size, bool) or not least <= whole <= most:
        raise ConfigurationError(f"image_size must be an integer in {least} .. {most}, got {image_size!r}")
    return whole


def checked_images(where: str, x: NDArray[Any], image_size: int | None = None) -> Pixels:
    """Images of shape (N, H, W[, C]) as uint8 or float32 of shape (N, H, W, C), no larger than asked for.

    Raises:
        ConfigurationError: if ``image_size`` is not allowed.
        DataError: beginning with ``where``, if they cannot serve.
    """
    size = _checked_image_size(image_size)
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        number = int(np.argwhere(~np.isfinite(x))[0][0])
        raise DataError(f"{where}: pixels must be finite, found NaN or infinity in image {number}")
    pixels = with_channels(where, checked_pixels(where, x))
    if min(pixels.shape[1:3]) < IMAGE_SIZES[0]:
        raise DataError(f"{where}: images have {pixels.shape[1]} x {pixels.shape[2]} pixels, need at least 8 x 8")
    if shrunk(pixels[0], size).shape == pixels.shape[1:]:
        return pixels
    return np.stack([shrunk(image, size) for image in pixels])


def _labelled(
    name: str, x: Pixels, labels: NDArray[Any], test: NDArray[np.bool_] | None = None, few_shot: bool = False
) -> UserData:
    """The data; without a test part of whole classes if it may be a set for ``few_shot`` learning."""
    if len(labels) != len(x):
        raise DataError(f"{name}: must have a label for each of {len(x)} examples, has {len(labels)}")
    classes, y = numbered(name, labels)
    if test is not None and (not test.any() or (few_shot and tells_classes_apart(y, test))):
        test = None
    return UserData(name, classes, x, y, test)


def _from_image_set(images: ImageSet, image_size: int, few_shot: bool) -> UserData:
    x = checked_images(images.name, np.concatenate(images.images), image_size)
    y = np.repeat(np.array(images.classes), [len(array) for array in images.images])
    test = None if images.parts is None else np.concatenate(images.parts) == 2
    return _labelled(images.name, x, y, test, few_shot)


def _read_npz(path: Path, image_size: int) -> UserData:
    arrays = npz_arrays(path)
    few_shot = "split" in arrays
    examples = {name: array for name, array in arrays.items() if name.startswith("x")}
    if "images" in arrays or not examples or any(array.ndim != 2 for array in examples.values()):
        return replace(_from_image_set(read_npz(path), image_size, few_shot), name=str(path))
    x, y, parts = joined_npz(path, examples, arrays)
    return _labelled(str(path), checked_features(str(path), x), y, None if parts is None else parts == 2, few_shot)
