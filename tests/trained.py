"""Small trained models for tests: of scikit-learn's digits, of colour pictures and of features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits, load_wine

from rlnas.architecture import Architecture
from rlnas.data_division import divide
from rlnas.final_training import FinalTraining, train_fully
from rlnas.model import Model
from rlnas.search_space import CellSpace, ChainSpace
from rlnas.user_data import UserData, data_from_arrays

CHAIN = ChainSpace(5, widths=(4,), dense_widths=(16,))
SMALL = CHAIN.parse("conv3x3-4 > max-pool > conv5x5-4 > avg-pool > dense-16")
CELL = CellSpace(width=4).parse(
    "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|avg_pool_3x3~0|nor_conv_3x3~1|skip_connect~2|"
)
QUICK = FinalTraining(width=2, epochs=2, min_steps=1, threads=1)


def digits(examples: int = 600) -> UserData:
    """The first of scikit-learn's digits, floats in 0 .. 16."""
    x, y = load_digits(return_X_y=True)
    return data_from_arrays(x[:examples].reshape(-1, 8, 8), y[:examples], "digits")


def wine() -> UserData:
    """178 rows of 13 features of three classes, and a feature that says nothing."""
    x, y = load_wine(return_X_y=True)
    return data_from_arrays(np.column_stack([x, np.full(len(x), 7.0)]), y, "wine")


def colours() -> UserData:
    """Bytes of 9 x 10 pixels in RGB; classes differ in which channel is the brightest."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % 3
    return data_from_arrays((rng.random((120, 9, 10, 3)) * 200 + 55 * np.eye(3)[y][:, None, None]).astype(np.uint8), y)


def trained(
    folder: Path, architecture: Architecture = SMALL, data: UserData | None = None, config: FinalTraining = QUICK
) -> Model:
    """A model, trained in a folder of its own."""
    data = digits() if data is None else data
    model = train_fully(architecture, data, divide(data), config, folder)
    assert model is not None
    return model
