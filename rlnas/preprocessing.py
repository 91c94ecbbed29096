"""From images or features as they came to what networks see: float32 of shape (N, C, H, W)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlnas.data_checks import checked_features
from rlnas.errors import DataError, at_least, one_of
from rlnas.images import checked_pixels, covering, with_channels
from rlnas.user_data import UserData

KINDS = ("images", "features")
LIGHTEST = 1.001
"""What rounding may make of a pixel that should be 1."""


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """What is done to raw images or features before a network sees them; a model keeps it.

    Images of another size are brought to that of ``input_shape`` by :func:`rlnas.images.covering`, grey ones become RGB
    where the network sees RGB. Features are standardised: ``(x - mean) / deviation``, and 0 where the deviation is 0.

    Args:
        kind: ``images`` or ``features``.
        input_shape: (channels, height, width) that the network sees; (F, 1, 1) for F features.
        bytes: whether the images trained on were integers in 0 .. 255. If not, they were floats.
        white: the value of a pixel that is shown as 1.0: 255 of bytes, unless all of the data are 0 and 1; of floats
            the largest of the training data, but at least 1.
        mean: of each feature, float64 of shape (F,); empty for images.
        deviation: likewise.
    """

    kind: str
    input_shape: tuple[int, int, int]
    bytes: bool
    white: float
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    def __call__(self, x: ArrayLike) -> NDArray[np.float32]:
        """Networks' input, of shape (N, C, H, W): images in [0, 1], features standardised.

        Args:
            x: images of shape (N, H, W) or (N, H, W, C), of the kind of number that was trained on, because 1 means
                another thing among bytes than among floats; in place of bytes also floats in 0 .. 1. Or features of
                shape (N, F).

        Raises:
            DataError: if ``x`` has another shape or other numbers, is not finite, or an image has colours where the
                network sees grey.
        """
        return self._features(np.asarray(x)) if self.kind == "features" else self._images(np.asarray(x))

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which :meth:`from_json` makes an equal one."""
        return {
            "kind": self.kind,
            "input_shape": list(self.input_shape),
            "bytes": self.bytes,
            "white": self.white,
            "mean": self.mean.tolist(),
            "deviation": self.deviation.tolist(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Preprocessing:
        """The one that :meth:`to_json` described.

        Raises:
            DataError: if it describes none.
        """
        try:
            channels, height, width = (at_least("input_shape", side, 1) for side in data["input_shape"])
            mean, deviation = (np.array(data[field], dtype=np.float64) for field in ("mean", "deviation"))
            kind, shape = one_of("kind", data["kind"], KINDS), (channels, height, width)
            made = cls(kind, shape, data["bytes"] is True, float(data["white"]), mean, deviation)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"not a description of preprocessing: {error!r}") from None
        count = channels if made.kind == "features" else 0
        if not mean.shape == deviation.shape == (count,) or not np.isfinite([*mean, *deviation, made.white]).all():
            raise DataError(f"not a description of preprocessing: it needs {count} finite means and deviations")
        if made.white < 1 or (deviation < 0).any():
            raise DataError("not a description of preprocessing: white must be at least 1 and deviations at least 0")
        return made

    def _features(self, x: NDArray[Any]) -> NDArray[np.float32]:
        features = checked_features("features", x)
        count = self.input_shape[0]
        if features.shape[1] != count:
            raise DataError(f"features must have shape (N, {count}), got {features.shape}")
        shift = features.astype(np.float64) - self.mean
        standard = np.divide(shift, self.deviation, out=np.zeros_like(shift), where=self.deviation > 0)
        with np.errstate(over="ignore"):  # the network's answer will not be finite
            return standard.astype(np.float32)[:, :, None, None]

    def _images(self, x: NDArray[Any]) -> NDArray[np.float32]:
        channels, *size = self.input_shape
        if self.bytes and x.dtype.kind == "b":
            x = x.astype(np.float32)  # black and white, whatever white is
        pixels = with_channels("images", checked_pixels("images", x))
        if self.bytes and pixels.dtype != np.uint8 and pixels.max() > LIGHTEST:
            raise DataError(f"images must be bytes, as those trained on, or floats in 0 .. 1; found {pixels.max()}")
        if self.bytes and pixels.dtype == np.uint8 and pixels.max() > self.white:
            raise DataError(f"images must be of 0 and 1, as those trained on; found {pixels.max()}")
        if not self.bytes and pixels.dtype == np.uint8:
            raise DataError(f"images must be floats, as those trained on (up to {self.white:g}), got {x.dtype}")
        if pixels.shape[3] > channels:
            raise DataError(f"images must be grey, as those that were trained on; got shape {pixels.shape}")
        height, width = size
        if pixels.shape[1:3] != (height, width):
            pixels = np.stack([covering(image, (height, width)) for image in pixels])
        white = np.float32(1 if self.bytes and pixels.dtype != np.uint8 else self.white)
        shown = pixels.transpose(0, 3, 1, 2).astype(np.float32) / white
        return np.array(np.broadcast_to(shown, (len(shown), channels, height, width)), order="C")


def preprocessing_of(data: UserData, train: NDArray[np.int64]) -> Preprocessing:
    """How this data is shown to networks.

    Args:
        data: the data.
        train: the rows that means and deviations of features and the white of float pixels are of: a division's train.
    """
    if data.kind == "features":
        rows = data.x[train].astype(np.float64)
        # A column that is constant in float32 has a deviation of rounding errors in float64.
        deviation = np.where(np.ptp(rows, axis=0) > 0, rows.std(axis=0), 0.0)
        return Preprocessing("features", data.input_shape, False, 1.0, rows.mean(axis=0), deviation)
    is_bytes = data.x.dtype == np.uint8
    white = max(1.0, float(data.x[train].max()))
    if is_bytes:  # what bytes mean is a matter of their format, not of the part they are in
        white = 255.0 if data.x.max() > 1 else 1.0
    return Preprocessing("images", data.input_shape, is_bytes, white, np.empty(0), np.empty(0))
