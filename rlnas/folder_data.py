"""A folder of labelled images of any sizes: a sub-folder for each class, or for each part that holds the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlnas.data_files import FileStamp
from rlnas.errors import DataError
from rlnas.image_files import class_folders, folders_and_images, image_files, read_image
from rlnas.images import IMAGE_SIZES, covering, shrunk

PARTS = ("train", "test", "val", "valid", "validation")
"""Sub-folders of these names, ``train`` among them, are parts of the data if ``train`` holds folders itself; capitals
don't matter."""


@dataclass(frozen=True)
class ListedImage:
    """An image file of a folder, its class and whether it is in the official test part."""

    path: Path
    label: str
    test: bool


def list_image_folder(root: Path) -> list[ListedImage]:
    """The images of a folder, sorted by part, class and path.

    Raises:
        DataError: see :func:`read_image_folder`.
    """
    folders = class_folders(root)
    named = {folder.name.lower(): folder for folder in folders}
    if "train" in named and named.keys() <= set(PARTS) and folders_and_images(named["train"])[0]:
        classes = [(folder, part.name.lower() == "test") for part in folders for folder in class_folders(part)]
    else:
        _require_no_parts(folders)
        classes = [(folder, False) for folder in folders]
    return [ListedImage(file, folder.name, test) for folder, test in classes for file in image_files(root, folder)]


def read_image_folder(
    root: Path, image_size: int, pixel_cap: int
) -> tuple[NDArray[np.uint8], list[str], NDArray[np.bool_], tuple[FileStamp, ...]]:
    """The images of a folder, all of one size.

    Args:
        root: a folder with a sub-folder for each class; or with sub-folders ``train`` and ``test``, and perhaps
            ``val``, that have one for each class: ``test`` is then the official test part and the others are one.
        image_size: see :func:`rlnas.user_data.read_data`.
        pixel_cap: the most pixels an image may have.

    Returns:
        The images, uint8 of shape (N, H, W, C), RGB unless all are grey; the class of each; which of them are in the
        official test part; the files.

    Raises:
        DataError: if the folder or a class is empty, an image lies in no class's folder, parts have other names or
            lie beside other folders, an image is corrupt, too small or too large, a link leaves the folder, or a file
            vanishes or changes before it is read.
    """
    listed = list_image_folder(root)
    files = tuple(FileStamp.of(image.path) for image in listed)
    images = []
    for file in files:
        try:
            image = read_image(file.path, pixel_cap)
        finally:
            file.require_unchanged()
        if min(image.shape[:2]) < IMAGE_SIZES[0]:
            raise DataError(f"{file.path}: has {image.shape[0]} x {image.shape[1]} pixels, needs at least 8 x 8")
        images.append(np.asarray(shrunk(image, image_size), dtype=np.uint8))
    test = np.array([image.test for image in listed])
    return _stacked(images, image_size), [image.label for image in listed], test, files


def _stacked(images: Sequence[NDArray[np.uint8]], image_size: int) -> NDArray[np.uint8]:
    """Images of one size and one kind from shrunk ones; see :func:`rlnas.user_data.read_data`."""
    sizes = {image.shape[:2] for image in images}
    height, width = sizes.pop() if len(sizes) == 1 else (image_size, image_size)
    stacked = np.empty((len(images), height, width, max(image.shape[2] for image in images)), dtype=np.uint8)
    for place, image in zip(stacked, images, strict=True):
        place[:] = covering(image, (height, width))
    return stacked


def _require_no_parts(folders: Sequence[Path]) -> None:
    """A class's images may lie in folders of its own, but a part of the data, which holds classes, is no class."""
    wanted = "parts must be called train, test and val, hold the classes, and have no other folder beside them"
    for folder in folders:
        inner = {each.name.lower() for each in folders_and_images(folder)[0]}
        if inner and folder.name.lower() in ("train", "training"):
            raise DataError(f"{folder}: holds folders, so it is a part of the data and not a class; {wanted}")
        if inner >= {"train", "test"}:
            raise DataError(f"{folder}: holds parts of the data, so it is no class; {wanted}")
