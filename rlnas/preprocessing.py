"""From images or features as they came to what networks see: float32 of shape (N, C, H, W)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlnas.errors import ConfigurationError, DataError
from rlnas.images import checked_pixels, covering
from rlnas.user_data import UserData


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """What is done to raw images or features before a network sees them; a model keeps it.

    Images of another size are brought to that of ``input_shape`` by :func:`rlnas.images.covering`, grey ones become RGB
    where the network sees RGB. Features are standardised: ``(x - mean) / deviation``, and 0 where the deviation is 0.

    Args:
        kind: ``images`` or ``features``.
        input_shape: (channels, height, width) that the network sees; (F, 1, 1) for F features.
        white: the value of a float pixel that is shown as 1.0; that of a byte is always 255.
        mean: of each feature, float64 of shape (F,); empty for images.
        deviation: likewise.
    """

    kind: str
    input_shape: tuple[int, int, int]
    white: float
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    def __call__(self, x: ArrayLike) -> NDArray[np.float32]:
        """Networks' input, of shape (N, C, H, W): images in [0, 1], features standardised.

        Args:
            x: images of shape (N, H, W) or (N, H, W, C), bytes or floats; or features of shape (N, F).

        Raises:
            DataError: if ``x`` has another shape, is not numeric or not finite, or an image has colours where the
                network sees grey.
        """
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which :meth:`from_json` makes an equal one."""
        raise NotImplementedError

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Preprocessing:
        """The one that :meth:`to_json` described.

        Raises:
            DataError: if it describes none.
        """
        raise NotImplementedError


def preprocessing_of(data: UserData, train: NDArray[np.int64]) -> Preprocessing:
    """How this data is shown to networks.

    Args:
        data: the data.
        train: the rows whose means and deviations features are standardised by: a division's ``train``.
    """
    raise NotImplementedError


def as_input(data: UserData, rows: NDArray[np.int64], train: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
    """Rows of the data as networks see them, float32 of shape (n, C, H, W).

    Args:
        data: the data.
        rows: which.
        train: see :func:`preprocessing_of`; may be left out for images.

    Raises:
        ConfigurationError: if ``train`` is left out for features.
    """
    raise NotImplementedError
