"""A user's own data, read once: labelled images or rows of features, as they came.

:func:`read_data` reads a folder of images, a ``.npz`` file, a ``.csv`` file or one of torchvision's sets;
:func:`data_from_arrays` takes arrays. What becomes of the data after that: :mod:`rlnas.data_division` divides it,
:mod:`rlnas.preprocessing` turns it into what networks see, :mod:`rlnas.user_source` makes tasks of it to search on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlnas.csv_data import read_csv
from rlnas.data_files import FileStamp, listed, require_unchanged, stamped
from rlnas.errors import ConfigurationError, DataError, at_least
from rlnas.folder_data import read_image_folder
from rlnas.image_files import PIXEL_CAP, npz_arrays, read_npz
from rlnas.images import ImageSet, Pixels, checked_pixels, covering
from rlnas.torchvision_sets import TORCHVISION_SETS, read_torchvision

DEFAULT_IMAGE_SIZE = 32
"""The longest that the shorter side of an image stays, in pixels, unless the user says otherwise."""

IMAGE_SIZES = (8, 224)
"""The shortest and the longest side of the images that networks see, in pixels."""

MAX_CLASSES = 1000
MAX_FEATURES = 10_000


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
            DataError: naming the first file that vanished, appeared or changed.
        """
        raise NotImplementedError


def read_data(
    source: str | Path,
    *,
    image_size: int | None = None,
    label: str | None = None,
    pixel_cap: int = PIXEL_CAP,
    data: str | Path | None = None,
    download: bool = False,
) -> UserData:
    """A user's data."""
    raise NotImplementedError


def data_from_arrays(
    x: Any, y: Any, name: str = "arrays", *, image_size: int | None = None, test: Any = None
) -> UserData:
    """Data that is in memory already."""
    raise NotImplementedError
