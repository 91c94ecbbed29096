"""A family of heterogeneous few-shot tasks made of real handwritten digits.

The images are scikit-learn's embedded copy of the test part of the UCI "Optical Recognition of Handwritten Digits" set
(Alpaydin & Kaynak 1998): 1,797 images of 8 x 8 pixels in 10 classes. A task draws 3 to 10 of the classes, 1 to 20
shots, and one *family* of transformations with its strength; all of it follows from the split and the task's index.

``train``, ``val`` and ``test`` share no images and draw from the same families. ``unseen-families`` draws from the
images of ``test``; its families combine two transformations in ways that the others never do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rlnas.task import FewShotTask, TaskSource

Images: TypeAlias = NDArray[np.float32]
"""(N, H, W), pixels in [0, 1]."""

Transformation: TypeAlias = Callable[[Images, np.random.Generator], Images]

QUERIES_PER_CLASS = 25
CANVAS = 12
SPLITS = {"train": 256, "val": 128, "test": 256, "unseen-families": 256}
_STREAM = {"train": 1, "val": 2, "test": 3, "unseen-families": 4}
_POOL = {"train": "train", "val": "val", "test": "test", "unseen-families": "test"}


class DigitsSource(TaskSource):
    """The digit tasks: splits ``train``, ``val``, ``test`` and ``unseen-families``.

    Support sets have equal shots a class, query sets 25 images a class, so accuracy moves in steps of at most 1/75.
    """

    @property
    def name(self) -> str:
        return "digits"

    @property
    def splits(self) -> dict[str, int]:
        return dict(SPLITS)

    def spec(self) -> dict[str, Any]:
        return {"kind": "digits"}

    def _build(self, split: str, index: int) -> FewShotTask:
        rng = np.random.default_rng([2026, _STREAM[split], index])
        families = UNSEEN_FAMILIES if split == "unseen-families" else FAMILIES
        family = list(families)[int(rng.integers(len(families)))]
        classes = rng.permutation(10)[: int(rng.integers(3, 11))]
        shots = int(np.round(np.exp(rng.uniform(0, np.log(20)))))
        pool = _pools()[_POOL[split]]
        support, query = [], []
        for label in classes:
            chosen = rng.permutation(pool[label])[: shots + QUERIES_PER_CLASS]
            support.append(chosen[:shots])
            query.append(chosen[shots:])
        images = _images()[np.concatenate([*support, *query])]
        for transform in families[family]:
            images = transform(images, rng)
        images = images[:, None].astype(np.float32)
        ways = np.arange(len(classes))
        return FewShotTask(
            name=f"digits:{split}/{index}",
            family=family,
            support_x=images[: len(classes) * shots],
            support_y=np.repeat(ways, shots),
            query_x=images[len(classes) * shots :],
            query_y=np.repeat(ways, QUERIES_PER_CLASS),
        )


@lru_cache(maxsize=1)
def _digits() -> tuple[Images, NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.images / 16).astype(np.float32), data.target.astype(np.int64)


def _images() -> Images:
    return _digits()[0]


@lru_cache(maxsize=1)
def _pools() -> Mapping[str, list[NDArray[np.int64]]]:
    """For each split, the image numbers of every class; the smallest (174 images) leaves 47 each to val and test."""
    labels = _digits()[1]
    rng = np.random.default_rng(1797)
    pools: dict[str, list[NDArray[np.int64]]] = {"train": [], "val": [], "test": []}
    for label in range(10):
        order = rng.permutation(np.flatnonzero(labels == label))
        for name, part in zip(pools, np.split(order, [80, 80 + (len(order) - 80) // 2]), strict=True):
            pools[name].append(part)
    return pools


def _plain(images: Images, rng: np.random.Generator) -> Images:
    return images


def _permute(images: Images, rng: np.random.Generator) -> Images:
    """One permutation of the pixels for the whole task: nothing local is left."""
    order = rng.permutation(images[0].size)
    return images.reshape(len(images), -1)[:, order].reshape(images.shape)


def _translate(images: Images, rng: np.random.Generator) -> Images:
    """Each image at a random place of a larger canvas."""
    height, width = images.shape[1:]
    canvas = np.zeros((len(images), CANVAS, CANVAS), dtype=np.float32)
    for image, place in zip(images, canvas, strict=True):
        top, left = rng.integers(CANVAS - height + 1), rng.integers(CANVAS - width + 1)
        place[top : top + height, left : left + width] = image
    return canvas


def _add_noise(images: Images, rng: np.random.Generator) -> Images:
    """Gaussian noise of one random strength, clipped to the pixel range."""
    noise = rng.normal(0, rng.uniform(0.2, 0.6), images.shape)
    return np.clip(images + noise, 0, 1).astype(np.float32)


def _invert(images: Images, rng: np.random.Generator) -> Images:
    """Half of the images, at random, as their negatives: the same class in two contrasts."""
    negative = rng.random((len(images), 1, 1)) < 0.5
    return np.where(negative, 1 - images, images)


def _rotate(images: Images, rng: np.random.Generator) -> Images:
    """Each image turned by a random angle up to one random maximum of 30 to 90 degrees (bilinear, same size)."""
    from scipy.ndimage import rotate

    limit = rng.uniform(30, 90)
    turned = [rotate(i, rng.uniform(-limit, limit), reshape=False, order=1) for i in images]
    return np.stack(turned).astype(np.float32)


def _coarsen(images: Images, rng: np.random.Generator) -> Images:
    """Half the resolution, shown at the old size."""
    n, height, width = images.shape
    small = images.reshape(n, height // 2, 2, width // 2, 2).mean((2, 4))
    return np.asarray(small.repeat(2, axis=1).repeat(2, axis=2))


def _enlarge(images: Images, rng: np.random.Generator) -> Images:
    """Interpolated (cubic) to the canvas's size: larger strokes, more pixels."""
    from scipy.ndimage import zoom

    scale = CANVAS / images.shape[1]
    return np.asarray(np.clip(zoom(images, (1, scale, scale), order=3), 0, 1), dtype=np.float32)


FAMILIES: dict[str, tuple[Transformation, ...]] = {
    "plain": (_plain,),
    "permuted": (_permute,),
    "translated": (_translate,),
    "noisy": (_add_noise,),
    "inverted": (_invert,),
    "rotated": (_rotate,),
    "coarse": (_coarsen,),
    "enlarged": (_enlarge,),
    "permuted-noisy": (_add_noise, _permute),
    "translated-inverted": (_translate, _invert),
}
UNSEEN_FAMILIES: dict[str, tuple[Transformation, ...]] = {
    "rotated-noisy": (_rotate, _add_noise),
    "permuted-inverted": (_permute, _invert),
    "translated-noisy": (_translate, _add_noise),
    "enlarged-inverted": (_enlarge, _invert),
    "rotated-coarse": (_rotate, _coarsen),
}
