"""Reading a user's images: a folder or a ``.npz`` file.

What cannot serve is refused with a :class:`~rlnas.errors.DataError` that names the file. Nothing is unpickled.
"""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

from rlnas.data_checks import require_labels
from rlnas.errors import DataError
from rlnas.images import ImageSet, ImageSize, Parts, Pixels, checked_pixels, checked_size, grouped, resize

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pbm", ".pgm", ".ppm"})
"""Files of an image folder with other endings are not images, and skipped."""

_NPZ_PAIRS = (("x", "y"), ("x_train", "y_train"), ("x_test", "y_test"))
_NPZ_ARRAYS = ("images", "split", *(name for pair in _NPZ_PAIRS for name in pair))
PIXEL_CAP = 89_478_485
"""An image of more pixels is not unpacked; Pillow's own limit."""

BYTES_CAP = 2**33
"""An archive that unpacks to more is not unpacked."""


def read_folder(path: str | Path, image_size: ImageSize = None) -> ImageSet:
    """The images of a folder that has one sub-folder for each class.

    Images may lie deeper within a class's folder. Hidden files and files that are no images by their ending are
    skipped. Images are turned as their EXIF data say, transparent ones are laid on white, 12 and 16 bits a pixel become
    8. If all are grey they have 1 channel, otherwise all are RGB.

    Args:
        path: the folder.
        image_size: the size to give every image (bilinear, with antialiasing); needed where they differ.

    Raises:
        DataError: if the folder is missing or empty, has fewer than two classes, an image lies beside their folders, is
            corrupt or larger than :data:`PIXEL_CAP`, sizes differ and ``image_size`` is None, or a link leaves the
            folder.
    """
    root, size = absolute(path), checked_size(image_size)
    if not os.path.isdir(root):
        raise DataError(f"{root}: no such folder")
    folders = class_folders(root)
    files = [image_files(root, folder) for folder in folders]
    arrays = _read_images(files, size)
    channels = max(image.shape[2] for members in arrays for image in members)
    images = tuple(
        np.stack([np.broadcast_to(image, (*image.shape[:2], channels)) for image in members]) for members in arrays
    )
    return ImageSet(f"folder:{root}", tuple(folder.name for folder in folders), images)


def read_npz(path: str | Path, image_size: ImageSize = None) -> ImageSet:
    """The images of a numpy ``.npz`` file.

    Args:
        path: a file that has either ``images``, of shape (classes, n, H, W[, C]), or ``x``, of shape (N, H, W[, C]),
            and labels ``y``, of shape (N,); or the same as ``x_train`` and ``y_train``, ``x_test`` and ``y_test``,
            which is then the official split. So is ``split``, of shape (classes,) or (N,): 0 train, 1 val, 2 test;
            where it has two values only, 0 is train and the other test.
        image_size: the size to give every image.

    Raises:
        DataError: if the file is missing, truncated or no ``.npz``; if arrays are missing, disagree in length, hold
            NaN or Python objects, or have fewer than two classes.
    """
    path = absolute(path)
    arrays = npz_arrays(path)
    pixels = {name: checked_pixels(f"{path}: {name}", a) for name, a in arrays.items() if name[0] in "ix"}
    if "images" in pixels:
        return _npz_by_class(path, pixels["images"], arrays.get("split")).resized(image_size)
    return grouped(f"npz:{path}", *joined_npz(path, pixels, arrays)).resized(image_size)


def absolute(path: str | Path) -> Path:
    """The path itself, without ``~``, links or ``..``.

    Raises:
        DataError: if it leads nowhere.
    """
    try:
        return Path(path).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a link to itself, the home of nobody, a null byte
        raise DataError(f"{path}: cannot be followed ({error})") from None


def _by(image: Pixels) -> str:
    return f"{image.shape[0]} x {image.shape[1]}"


def class_folders(folder: Path) -> list[Path]:
    """The sub-folders of a folder that has one for each class.

    Raises:
        DataError: if there are none, or an image lies beside them.
    """
    folders, images = folders_and_images(folder)
    if not folders:
        raise DataError(f"{folder}: has no sub-folders; it needs one for each class")
    if images:
        raise DataError(f"{images[0]}: has no label, because it lies beside the folders of the classes")
    return folders


def folders_and_images(folder: Path) -> tuple[list[Path], list[Path]]:
    """What lies in the folder itself, sorted; hidden ones and other files excepted."""
    folders, images = [], []
    try:
        for path in sorted(folder.iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_dir():
                folders.append(path)
            elif path.suffix.lower() in ENDINGS:
                images.append(path)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from None
    return folders, images


def image_files(root: Path, folder: Path) -> list[Path]:
    """The images of one class; links may not leave the folder, so that a set never shows what it does not hold."""
    found = []
    for file in [folder, *sorted(folder.rglob("*"))]:
        if any(part.startswith(".") for part in file.relative_to(root).parts):
            continue
        if not absolute(file).is_relative_to(root):
            raise DataError(f"{file}: is a link that leaves {root}")
        if file.suffix.lower() in ENDINGS and not file.is_dir():
            found.append(file)
    if not found:
        raise DataError(f"{folder}: has no images (files that end in {', '.join(sorted(ENDINGS))})")
    return found


def _read_images(files: list[list[Path]], size: tuple[int, int] | None) -> list[list[NDArray[np.uint8]]]:
    """The images of every class, all of one height and width."""
    first = _read_resized(files[0][0], size)
    arrays: list[list[NDArray[np.uint8]]] = []
    for members in files:
        arrays.append([])
        for file in members:
            image = _read_resized(file, size)
            if image.shape[:2] != first.shape[:2]:
                raise DataError(
                    f"{files[0][0]} has {_by(first)} pixels (height x width) and {file} {_by(image)}; "
                    "images of different sizes need image_size"
                )
            arrays[-1].append(image)
    return arrays


def _read_resized(path: Path, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    image = read_image(path)
    return image if size is None else np.asarray(resize(image, size), dtype=np.uint8)


def read_image(path: Path, pixel_cap: int = PIXEL_CAP) -> NDArray[np.uint8]:
    """One image file as uint8 of shape (H, W, 1 or 3).

    Raises:
        DataError: if it is no readable image or has more than ``pixel_cap`` pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                width, height = image.size
                if width * height > pixel_cap:
                    raise ValueError(f"{height} x {width} pixels exceed the limit of {pixel_cap}")
                return _decode(image)
    except Exception as error:  # a corrupt file makes Pillow's decoders raise almost anything
        raise DataError(f"{path}: not a readable image ({_one_line(error)})") from error


def _decode(opened: Image.Image) -> NDArray[np.uint8]:
    image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I;16") or (image.mode == "I" and opened.format in ("PNG", "PPM")):
        # Pillow's own conversion would clip at 255. Only of a TIFF it leaves 12 bits as they are.
        bits = opened.tag_v2[BITSPERSAMPLE][0] if isinstance(opened, TiffImageFile) else 16
        return np.asarray(np.asarray(image, dtype=np.int64) >> (bits - 8), dtype=np.uint8)[:, :, None]
    if image.mode in ("F", "I"):
        raise ValueError("its pixels are floating-point numbers or integers of no known range")
    grey = image.mode in ("1", "L", "LA")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        page = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(page, image.convert("RGBA"))
    pixels = np.asarray(image.convert("L" if grey else "RGB"))
    return pixels[:, :, None] if grey else pixels


def npz_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file that mean something here: ``images``, ``split``, ``x``, ``y``, ``x_train`` ...

    Raises:
        DataError: see :func:`read_npz`.
    """
    if not os.path.isfile(path):
        raise DataError(f"{path}: no such file")
    arrays: dict[str, NDArray[Any]] = {}
    reading = "not a readable .npz file"
    with path.open("rb") as stream:
        try:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile) or file.zip is None:
                raise ValueError("it holds a single array")
            _require_harmless(file.zip)
            for name in _NPZ_ARRAYS:
                if name in file:
                    reading = f"{name} cannot be read"
                    arrays[name] = file[name]
                    if not isinstance(arrays[name], np.ndarray):
                        raise ValueError("it is not an array")
        except Exception as error:  # numpy and zipfile raise many kinds on what is not, or no longer, an archive
            raise DataError(f"{path}: {reading} ({_one_line(error)})") from error
    return arrays


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _require_harmless(archive: zipfile.ZipFile) -> None:
    """Nothing is unpacked to disk; but who packs a member that would leave a folder means harm."""
    for member in archive.namelist():
        place = PureWindowsPath(member)  # which takes both kinds of slash for what they are
        if place.anchor or ".." in place.parts:
            raise ValueError(f"its member {member!r} would leave the archive")
    size = sum(member.file_size for member in archive.infolist())
    if size > BYTES_CAP:
        raise ValueError(f"it unpacks to {size} bytes, more than the limit of {BYTES_CAP}")


def _npz_by_class(path: Path, images: Pixels, split: NDArray[Any] | None) -> ImageSet:
    if images.ndim not in (4, 5):
        raise DataError(
            f"{path}: images must have shape (classes, n, H, W) or (classes, n, H, W, C), got {images.shape}"
        )
    parts = None
    if split is not None:
        by_class = _official_parts(f"{path}: split", split, len(images))
        parts = tuple(np.full(images.shape[1], part, dtype=np.int8) for part in by_class)
    return ImageSet(f"npz:{path}", tuple(str(i) for i in range(len(images))), tuple(images), parts)


def joined_npz(
    path: Path, examples: Mapping[str, NDArray[Any]], arrays: Mapping[str, NDArray[Any]]
) -> tuple[NDArray[Any], NDArray[Any], Parts | None]:
    """Examples, labels and official split of a file whose ``examples`` are ``x``, or ``x_train`` and ``x_test``."""
    pairs = [pair for pair in _NPZ_PAIRS if pair[0] in examples]
    if not pairs:
        raise DataError(f"{path}: has neither images nor x nor x_train nor x_test")
    if pairs[0][0] == "x":
        pairs = pairs[:1]
    for x, y in pairs:
        if y not in arrays:
            raise DataError(f"{path}: has {x} but not its labels {y}")
        if arrays[y].shape != examples[x].shape[:1] or arrays[y].dtype.kind not in "iuUS":
            raise DataError(
                f"{path}: {y} must be {len(examples[x])} integers or texts, one for each image of {x}; "
                f"got {arrays[y].dtype} of shape {arrays[y].shape}"
            )
        require_labels(f"{path}: {y}", arrays[y])
    kinds = {x: (examples[x].shape[1:], str(examples[x].dtype)) for x, _ in pairs}
    if len(set(kinds.values())) > 1:
        raise DataError(f"{path}: images differ in shape or kind: {kinds}")
    together = np.concatenate([examples[x] for x, _ in pairs])
    parts = None
    if "split" in arrays:
        parts = _official_parts(f"{path}: split", arrays["split"], len(together))
    elif len(pairs) == 2:
        parts = np.repeat(np.array([0, 2], dtype=np.int8), [len(examples[x]) for x, _ in pairs])
    return together, np.concatenate([arrays[y] for _, y in pairs]), parts


def _official_parts(where: str, split: NDArray[Any], count: int) -> Parts:
    values = set(np.unique(split).tolist())
    if split.shape != (count,) or values not in ({0, 1}, {0, 2}, {0, 1, 2}):
        raise DataError(
            f"{where}: must be {count} numbers, 0 train, 1 val, 2 test (or 0 and 1 only); "
            f"got shape {split.shape} with values {sorted(values)[:5]}"
        )
    return np.where(split > 0, 2, 0).astype(np.int8) if len(values) == 2 else split.astype(np.int8)
