"""Reading a user's images: a folder, a ``.npz`` file or one of torchvision's sets.

What cannot serve is refused with a :class:`~rlnas.errors.DataError` that names the file. Nothing is unpickled, but for
one case: torchvision unpickles the batches of CIFAR-10, after comparing each file with its published MD5 sum.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from rlnas.errors import DataError
from rlnas.images import ImageSet, ImageSize, Parts, Pixels, checked_pixels, checked_size, grouped, resize

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pbm", ".pgm", ".ppm"})
"""Files of an image folder with other endings are not images, and skipped."""

_NPZ_PAIRS = (("x", "y"), ("x_train", "y_train"), ("x_test", "y_test"))
_NPZ_ARRAYS = ("images", "split", *(name for pair in _NPZ_PAIRS for name in pair))
_TORCHVISION_FOLDERS = {
    "omniglot": "omniglot-py",
    "fashion-mnist": "FashionMNIST",
    "cifar10": "cifar-10-batches-py",
}
OMNIGLOT_SIZE = (28, 28)
"""The usual size; the drawings themselves have 105 x 105 pixels."""


def read_folder(path: str | Path, image_size: ImageSize = None) -> ImageSet:
    """The images of a folder that has one sub-folder for each class.

    Images may lie deeper within a class's folder. Hidden files and files that are no images by their ending are
    skipped. Images are turned as their EXIF data say, transparent ones are laid on white, 16 bits a pixel become 8. If
    all are grey they have 1 channel, otherwise all are RGB.

    Args:
        path: the folder.
        image_size: the size to give every image (bilinear, with antialiasing); needed where they differ.

    Raises:
        DataError: if the folder is missing or empty, has fewer than two classes, an image is corrupt or larger than
            ``PIL.Image.MAX_IMAGE_PIXELS``, sizes differ and ``image_size`` is None, or a link leaves the folder.
    """
    root, size = _absolute(path), checked_size(image_size)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    folders = [f for f in sorted(root.iterdir()) if f.is_dir() and not f.name.startswith(".")]
    if not folders:
        raise DataError(f"{root}: has no sub-folders; it needs one for each class")
    files = [_image_files(root, folder) for folder in folders]
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
    path = _absolute(path)
    arrays = _npz_arrays(path)
    pixels = {name: checked_pixels(f"{path}: {name}", a) for name, a in arrays.items() if name[0] in "ix"}
    if "images" in pixels:
        return _npz_by_class(path, pixels["images"], arrays.get("split")).resized(image_size)
    return _npz_by_label(path, pixels, arrays).resized(image_size)


def read_torchvision(
    kind: str, data: str | Path | None = None, image_size: ImageSize = None, download: bool = False
) -> ImageSet:
    """One of torchvision's sets, with its official split.

    Omniglot's classes are its characters: background to train, evaluation to test, 28 x 28 pixels unless ``image_size``
    says otherwise. The ten classes of Fashion-MNIST and CIFAR-10 are the same in train and test.

    Args:
        kind: ``omniglot``, ``fashion-mnist`` or ``cifar10``.
        data: the folder that torchvision calls root; by default the folder that the environment variable RLNAS_DATA
            names, if the set is in it, otherwise ``~/.cache/rlnas``.
        image_size: the size to give every image.
        download: whether torchvision may download the set.

    Raises:
        DataError: if the set is not there and may not be, or cannot be, downloaded, or is incomplete or corrupt.
    """
    size = checked_size(image_size)
    root = _torchvision_root(kind, data, download)
    try:
        x, y, parts = _read_torchvision_arrays(kind, root, size or OMNIGLOT_SIZE, download)
    except Exception as error:  # torchvision lets through whatever the network, the files or Pillow raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{kind}: the copy in {root} cannot be read or completed ({reason[0]})") from error
    return grouped(kind, x, y, parts).resized(size)


def _absolute(path: str | Path) -> Path:
    return Path(path).expanduser().resolve()


def _by(image: Pixels) -> str:
    return f"{image.shape[0]} x {image.shape[1]}"


def _image_files(root: Path, folder: Path) -> list[Path]:
    """The images of one class; links may not leave the folder, so that a set never shows what it does not hold."""
    found = []
    for file in [folder, *sorted(folder.rglob("*"))]:
        if any(part.startswith(".") for part in file.relative_to(root).parts):
            continue
        if not file.resolve().is_relative_to(root):
            raise DataError(f"{file}: is a link that leaves {root}")
        if file.suffix.lower() in ENDINGS and not file.is_dir():
            found.append(file)
    if not found:
        raise DataError(f"{folder}: has no images (files that end in {', '.join(sorted(ENDINGS))})")
    return found


def _read_images(files: list[list[Path]], size: tuple[int, int] | None) -> list[list[NDArray[np.uint8]]]:
    """The images of every class, all of one height and width."""
    first = _read_image(files[0][0], size)
    arrays: list[list[NDArray[np.uint8]]] = []
    for members in files:
        arrays.append([])
        for file in members:
            image = _read_image(file, size)
            if image.shape[:2] != first.shape[:2]:
                raise DataError(
                    f"{files[0][0]} has {_by(first)} pixels (height x width) and {file} {_by(image)}; "
                    "images of different sizes need image_size"
                )
            arrays[-1].append(image)
    return arrays


def _read_image(path: Path, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """One image file as uint8 of shape (H, W, 1 or 3)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                pixels = _decode(image)
    except Exception as error:  # a corrupt file makes Pillow's decoders raise almost anything
        raise DataError(f"{path}: not a readable image ({error})") from error
    return pixels if size is None else np.asarray(resize(pixels, size), dtype=np.uint8)


def _decode(opened: Image.Image) -> NDArray[np.uint8]:
    image = ImageOps.exif_transpose(opened)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow's own conversion would clip at 255
        deep = np.asarray(image, dtype=np.int64)
        return np.asarray(np.clip(deep >> 8, 0, 255), dtype=np.uint8)[:, :, None]
    grey = image.mode in ("1", "L", "LA")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        page = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(page, image.convert("RGBA"))
    pixels = np.asarray(image.convert("L" if grey else "RGB"))
    return pixels[:, :, None] if grey else pixels


def _npz_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file that mean something here."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    arrays: dict[str, NDArray[Any]] = {}
    reading = "not a readable .npz file"
    with path.open("rb") as stream:
        try:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            for name in _NPZ_ARRAYS:
                if name in file:
                    reading = f"{name} cannot be read"
                    arrays[name] = file[name]
                    if not isinstance(arrays[name], np.ndarray):
                        raise ValueError("it is not an array")
        except Exception as error:  # numpy and zipfile raise many kinds on what is not, or no longer, an archive
            raise DataError(f"{path}: {reading} ({error})") from error
    return arrays


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


def _npz_by_label(path: Path, pixels: dict[str, Pixels], arrays: dict[str, NDArray[Any]]) -> ImageSet:
    pairs = [pair for pair in _NPZ_PAIRS if pair[0] in pixels]
    if not pairs:
        raise DataError(f"{path}: has neither images nor x nor x_train nor x_test")
    if pairs[0][0] == "x":
        pairs = pairs[:1]
    for x, y in pairs:
        if y not in arrays:
            raise DataError(f"{path}: has {x} but not its labels {y}")
        if arrays[y].shape != pixels[x].shape[:1] or arrays[y].dtype.kind not in "iuUS":
            raise DataError(
                f"{path}: {y} must be {len(pixels[x])} integers or texts, one for each image of {x}; "
                f"got {arrays[y].dtype} of shape {arrays[y].shape}"
            )
    kinds = {x: (pixels[x].shape[1:], str(pixels[x].dtype)) for x, _ in pairs}
    if len(set(kinds.values())) > 1:
        raise DataError(f"{path}: images differ in shape or kind: {kinds}")
    together = np.concatenate([pixels[x] for x, _ in pairs])
    parts = None
    if "split" in arrays:
        parts = _official_parts(f"{path}: split", arrays["split"], len(together))
    elif len(pairs) == 2:
        parts = np.repeat(np.array([0, 2], dtype=np.int8), [len(pixels[x]) for x, _ in pairs])
    return grouped(f"npz:{path}", together, np.concatenate([arrays[y] for _, y in pairs]), parts)


def _official_parts(where: str, split: NDArray[Any], count: int) -> Parts:
    values = set(np.unique(split).tolist())
    if split.shape != (count,) or values not in ({0, 1}, {0, 2}, {0, 1, 2}):
        raise DataError(
            f"{where}: must be {count} numbers, 0 train, 1 val, 2 test (or 0 and 1 only); "
            f"got shape {split.shape} with values {sorted(values)[:5]}"
        )
    return np.where(split > 0, 2, 0).astype(np.int8) if len(values) == 2 else split.astype(np.int8)


def _torchvision_root(kind: str, data: str | Path | None, download: bool) -> Path:
    folder = _TORCHVISION_FOLDERS[kind]
    cache = Path("~/.cache/rlnas")
    places = [data] if data is not None else [p for p in (os.environ.get("RLNAS_DATA"), cache) if p]
    roots = [_absolute(place) for place in places]
    for root in roots:
        if (root / folder).is_dir():
            return root
    if not download:
        looked = " and ".join(str(root / folder) for root in roots)
        raise DataError(f"{kind} is not there (looked for {looked}); --download fetches it")
    return roots[-1]


def _read_torchvision_arrays(
    kind: str, root: Path, size: tuple[int, int], download: bool
) -> tuple[Pixels, NDArray[Any], Parts]:
    """All images of a set, their labels and their official parts; ``size`` is of Omniglot alone."""
    from torchvision.datasets import CIFAR10, FashionMNIST, Omniglot

    if kind == "omniglot":
        drawings = [Omniglot(str(root), background=flag, download=download) for flag in (True, False)]
        items = [[part[i] for i in range(len(part))] for part in drawings]
        x = [np.stack([resize(np.asarray(image)[:, :, None], size) for image, _ in part]) for part in items]
        y = [np.array([label for _, label in part]) for part in items]
        y[1] += y[0].max() + 1  # no character is in both parts
    else:
        dataset = FashionMNIST if kind == "fashion-mnist" else CIFAR10
        parts = [dataset(str(root), train=flag, download=download) for flag in (True, False)]
        x = [np.asarray(part.data) for part in parts]
        y = [np.asarray(part.targets) for part in parts]
    official = np.repeat(np.array([0, 2], dtype=np.int8), [len(labels) for labels in y])
    return np.concatenate(x), np.concatenate(y), official
