"""Images grouped by class, checked once and kept as they came: one byte a pixel where they had one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rlnas.errors import ConfigurationError, DataError, at_least

Pixels: TypeAlias = NDArray[np.uint8] | NDArray[np.float32]
"""Images of shape (N, H, W, C): bytes, or floats in 0 .. 1 or 0 .. 255."""

Parts: TypeAlias = NDArray[np.int8]
"""For each image 0 (train), 1 (val) or 2 (test)."""

ImageSize: TypeAlias = int | tuple[int, int] | None
"""A side, or (height, width), in pixels; None leaves images as they are."""


IMAGE_SIZES = (8, 224)
"""The shortest and the longest side of the images that networks are trained on fully, in pixels."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images grouped by class, all of one size.

    Args:
        name: what tasks and errors call it.
        classes: the classes' names.
        images: for each class its images, of shape (n, H, W) or (n, H, W, C) with 1 or 3 channels: unsigned bytes (or
            other integers in 0 .. 255), or floats in 0 .. 1 or 0 .. 255. Kept as (n, H, W, C), uint8 or float32.
        parts: for each class which of its images officially belong to train (0), val (1) and test (2), of shape (n,);
            None where there is no official split.

    Raises:
        DataError: if there are fewer than two classes, or the images of any differ in shape or kind from the others'
            or have pixels that are not finite or out of range.
    """

    name: str
    classes: tuple[str, ...]
    images: tuple[Pixels, ...]
    parts: tuple[Parts, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            found = f" ({self.classes[0]!r})" if self.classes else ""
            raise DataError(f"{self.name}: needs at least two classes, has {len(self.classes)}{found}")
        _require_lengths(f"{self.name}: images by class", len(self.images), len(self.classes))
        wheres = [f"{self.name}: class {name!r}" for name in self.classes]
        images = tuple(with_channels(w, checked_pixels(w, i)) for w, i in zip(wheres, self.images, strict=True))
        first = images[0]
        for where, array in zip(wheres, images, strict=True):
            if array.shape[1:] != first.shape[1:] or array.dtype != first.dtype:
                raise DataError(
                    f"{where}: images are {array.dtype} of (H, W, C) = {array.shape[1:]}, "
                    f"those of {self.classes[0]!r} {first.dtype} of {first.shape[1:]}"
                )
        object.__setattr__(self, "images", images)
        if self.parts is not None:
            _require_lengths(f"{self.name}: official split by class", len(self.parts), len(self.classes))
            for where, part, array in zip(wheres, self.parts, images, strict=True):
                _require_lengths(f"{where}: official split", len(part), len(array))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        height, width, channels = self.images[0].shape[1:]
        return height, width, channels

    @cached_property
    def white(self) -> float:
        """The pixel value that is shown as 1.0: 255, or 1 where no pixel is larger than 1 and pixels are floats."""
        if self.images[0].dtype == np.uint8:
            return 255.0
        return 255.0 if max(array.max() for array in self.images) > 1 else 1.0

    @cached_property
    def digest(self) -> str:
        """SHA-256 of class names, pixels and official split, in hexadecimal."""
        sha = hashlib.sha256()
        for number, (name, array) in enumerate(zip(self.classes, self.images, strict=True)):
            sha.update(repr((name, array.shape, array.dtype.str)).encode("utf-8", "surrogateescape"))
            sha.update(np.ascontiguousarray(array).data)
            if self.parts is not None:
                sha.update(self.parts[number].astype(np.int8).tobytes())
        return sha.hexdigest()

    def resized(self, image_size: ImageSize) -> ImageSet:
        """The same images at another size (bilinear, with antialiasing)."""
        size = checked_size(image_size)
        if size is None or size == self.image_shape[:2]:
            return self
        images: list[Pixels] = [np.stack([resize(image, size) for image in array]) for array in self.images]
        return ImageSet(self.name, self.classes, tuple(images), self.parts)


def checked_size(image_size: ImageSize | list[int]) -> tuple[int, int] | None:
    """``image_size`` as (height, width).

    Raises:
        ConfigurationError: if it is neither a positive integer nor two of them nor None.
    """
    if image_size is None:
        return None
    if isinstance(image_size, int):
        image_size = (image_size, image_size)
    if not isinstance(image_size, Sequence) or len(image_size) != 2:
        raise ConfigurationError(f"image_size must be an integer or (height, width), got {image_size!r}")
    return at_least("image_size", image_size[0], 1), at_least("image_size", image_size[1], 1)


def checked_pixels(where: str, array: NDArray[Any]) -> Pixels:
    """``array`` as uint8 (integers; booleans become 0 and 255) or float32 (floats), of any shape.

    Raises:
        DataError: beginning with ``where``, if it is empty, not numeric, not finite or not within 0 .. 255.
    """
    array = np.asarray(array)
    if array.dtype.kind not in "buif":  # booleans, integers, floats
        raise DataError(f"{where}: pixels must be numbers, got {array.dtype}")
    if array.size == 0:
        raise DataError(f"{where}: holds no image (its shape is {array.shape})")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if not np.isfinite(array).all():
        raise DataError(f"{where}: pixels must be finite, found NaN or infinity")
    low, high = array.min(), array.max()
    if low < 0 or high > 255:
        raise DataError(f"{where}: pixels must lie in 0 .. 255 (or 0 .. 1), found {low} .. {high}")
    return array.astype(np.float32) if array.dtype.kind == "f" else array.astype(np.uint8)


def resize(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """One image, of shape (H, W, C), at another (height, width); Pillow's filter is the same on every machine."""
    if image.shape[:2] == size:
        return image
    planes = (Image.fromarray(np.ascontiguousarray(image[:, :, c])) for c in range(image.shape[2]))
    return np.stack([np.asarray(p.resize(size[::-1], Image.Resampling.BILINEAR)) for p in planes], axis=2)


def covering(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """One image, of shape (H, W, C), shrunk or enlarged until it covers (height, width); what lies over is cut off.

    The aspect ratio is kept and the centre is what stays.
    """
    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    scale = max(size[0] / height, size[1] / width)
    seen_height, seen_width = min(height, size[0] / scale), min(width, size[1] / scale)
    top, left = (height - seen_height) / 2, (width - seen_width) / 2
    box = left, top, left + seen_width, top + seen_height
    planes = (Image.fromarray(np.ascontiguousarray(image[:, :, c])) for c in range(image.shape[2]))
    return np.stack([np.asarray(p.resize(size[::-1], Image.Resampling.BILINEAR, box)) for p in planes], axis=2)


def shrunk(image: NDArray[Any], image_size: int) -> NDArray[Any]:
    """One image, of shape (H, W, C), with a shorter side of at most ``image_size`` and a longer of at most 224.

    The aspect ratio is kept; of a longer side the middle is left.
    """
    height, width = image.shape[:2]
    scale = min(1.0, image_size / min(height, width))
    longest = IMAGE_SIZES[1]
    return covering(image, (min(round(height * scale), longest), min(round(width * scale), longest)))


def grouped(name: str, x: Pixels, y: NDArray[Any], parts: Parts | None = None) -> ImageSet:
    """Images grouped by label, in the order of the labels.

    Args:
        name: of the set.
        x: of shape (N, H, W) or (N, H, W, C).
        y: labels, of shape (N,).
        parts: official split, of shape (N,).
    """
    labels = np.unique(y)
    members = [np.flatnonzero(y == label) for label in labels]
    return ImageSet(
        name,
        tuple(str(label) for label in labels.tolist()),
        tuple(x[m] for m in members),
        None if parts is None else tuple(parts[m] for m in members),
    )


def _require_lengths(where: str, length: int, expected: int) -> None:
    if length != expected:
        raise DataError(f"{where}: expected {expected}, got {length}")


def with_channels(where: str, array: Pixels) -> Pixels:
    """Images of shape (N, H, W) or (N, H, W, C) as (N, H, W, C).

    Raises:
        DataError: beginning with ``where``, if they have another shape.
    """
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[3] not in (1, 3):
        raise DataError(f"{where}: images must be (N, H, W) or (N, H, W, C) with 1 or 3 channels, got {array.shape}")
    return array
