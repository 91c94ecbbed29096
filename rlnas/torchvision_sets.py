"""torchvision's sets of images by name.

Nothing is downloaded unless it is asked for. Nothing is unpickled, but for one case: torchvision unpickles the batches
of CIFAR-10 and CIFAR-100, after comparing each file with its published MD5 sum.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlnas.errors import DataError, one_of
from rlnas.image_files import absolute
from rlnas.images import ImageSet, ImageSize, Parts, Pixels, checked_size, grouped, resize

TORCHVISION_SETS = {
    "omniglot": ("Omniglot", "omniglot-py"),
    "mnist": ("MNIST", "MNIST"),
    "fashion-mnist": ("FashionMNIST", "FashionMNIST"),
    "kmnist": ("KMNIST", "KMNIST"),
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "cifar100": ("CIFAR100", "cifar-100-python"),
    "svhn": ("SVHN", "train_32x32.mat"),
}
"""For each set its class in torchvision, and the folder or file below torchvision's root that it is known by."""

OMNIGLOT_SIZE = (28, 28)
"""The usual size; the drawings themselves have 105 x 105 pixels."""


def read_torchvision(
    kind: str, data: str | Path | None = None, image_size: ImageSize = None, download: bool = False
) -> ImageSet:
    """One of torchvision's sets, with its official split.

    Omniglot's classes are its characters: background to train, evaluation to test, 28 x 28 pixels unless ``image_size``
    says otherwise. The classes of the other sets are the same in train and test.

    Args:
        kind: one of :data:`TORCHVISION_SETS`.
        data: the folder that torchvision calls root; by default the folder that the environment variable RLNAS_DATA
            names, if the set is in it, otherwise ``~/.cache/rlnas``.
        image_size: the size to give every image.
        download: whether torchvision may download the set.

    Raises:
        UnknownNameError: if there is no such set.
        DataError: if the set is not there and may not be, or cannot be, downloaded, or is incomplete or corrupt.
    """
    size = checked_size(image_size)
    one_of("set of torchvision", kind, TORCHVISION_SETS)
    root = _root(kind, data, download)
    try:
        x, y, parts = _arrays(kind, root, size or OMNIGLOT_SIZE, download)
    except Exception as error:  # torchvision lets through whatever the network, the files or Pillow raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{kind}: the copy in {root} cannot be read or completed ({reason[0]})") from error
    return grouped(kind, x, y, parts).resized(size)


def _root(kind: str, data: str | Path | None, download: bool) -> Path:
    _, place = TORCHVISION_SETS[kind]
    folders = [data] if data is not None else [p for p in (os.environ.get("RLNAS_DATA"), "~/.cache/rlnas") if p]
    roots = [absolute(folder) for folder in folders]
    for root in roots:
        if (root / place).exists():
            return root
    if not download:
        looked = " and ".join(str(root / place) for root in roots)
        raise DataError(f"{kind} is not there (looked for {looked}); --download fetches it")
    return roots[-1]


def _arrays(kind: str, root: Path, size: tuple[int, int], download: bool) -> tuple[Pixels, NDArray[Any], Parts]:
    """All images of a set, their labels and their official parts; ``size`` is of Omniglot alone."""
    import torchvision.datasets

    make = getattr(torchvision.datasets, TORCHVISION_SETS[kind][0])
    if kind == "omniglot":
        drawings = [make(str(root), background=flag, download=download) for flag in (True, False)]
        items = [[part[i] for i in range(len(part))] for part in drawings]
        x = [np.stack([resize(np.asarray(image)[:, :, None], size) for image, _ in part]) for part in items]
        y = [np.array([label for _, label in part]) for part in items]
        y[1] += y[0].max() + 1  # no character is in both parts
    elif kind == "svhn":
        halves = [make(str(root), split=name, download=download) for name in ("train", "test")]
        x = [half.data.transpose(0, 2, 3, 1) for half in halves]
        y = [half.labels for half in halves]
    else:
        halves = [make(str(root), train=flag, download=download) for flag in (True, False)]
        x = [np.asarray(half.data) for half in halves]
        y = [np.asarray(half.targets) for half in halves]
    official = np.repeat(np.array([0, 2], dtype=np.int8), [len(labels) for labels in y])
    return np.concatenate(x), np.concatenate(y), official
