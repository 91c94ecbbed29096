"""A trained network with everything that it takes to use it: from raw images or features to probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rlnas.architecture import Architecture
from rlnas.checkpoint import load_checkpoint, one_line, save_checkpoint
from rlnas.device import choose_device
from rlnas.errors import CheckpointError, DataError, RlnasError
from rlnas.network import Network
from rlnas.preprocessing import Preprocessing
from rlnas.scores import Scores
from rlnas.specs import architecture_from_json

KIND = "trained network"
PREDICTED_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network, its preprocessing, and where it comes from.

    Args:
        architecture: as it was trained, with its full width.
        classes: the classes' names; predictions are indices into them.
        preprocessing: what makes the network's input of raw images or features.
        mean: of every channel of that input over the part trained on, float32 of shape (C,).
        deviation: likewise; the network sees ``(input - mean) / deviation``.
        network: in evaluation mode.
        validation: scores on the validation part, of the weights that had not seen it.
        test: scores on the test part; None where there is none.
        facts: what else is known of the training, as JSON: see :func:`rlnas.final_training.train_fully`.
    """

    architecture: Architecture
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    network: Network
    validation: Scores | None = None
    test: Scores | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def predict_proba(self, x: ArrayLike) -> NDArray[np.float32]:
        """The probability of every class, of shape (N, ways).

        Args:
            x: raw images of shape (N, H, W) or (N, H, W, C), or features of shape (N, F): what the preprocessing takes.

        Raises:
            DataError: if it does not take ``x``, or the network's answer to it is not finite.
        """
        x = np.asarray(x)
        found = np.zeros((len(x), len(self.classes)), dtype=np.float32)
        for start in range(0, len(x), PREDICTED_AT_ONCE):
            rows = slice(start, start + PREDICTED_AT_ONCE)
            found[rows] = self._probabilities(torch.from_numpy(self.preprocessing(x[rows])))
        if not np.isfinite(found).all():
            row = int(np.argwhere(~np.isfinite(found))[0][0])
            raise DataError(f"example {row} is too far from those trained on: the network's answer is not finite")
        return found

    def predict(self, x: ArrayLike) -> NDArray[np.int64]:
        """The most probable class, as an index into :attr:`classes`, of shape (N,); see :meth:`predict_proba`."""
        return np.asarray(self.predict_proba(x).argmax(1))

    def save(self, path: str | Path) -> None:
        """Write the model to a folder or a ``.zip`` file, as JSON and safetensors; :func:`load_model` reads it."""
        data = {
            "kind": KIND,
            "architecture": self.architecture.to_json(),
            "text": self.architecture.text,
            "classes": list(self.classes),
            "preprocessing": self.preprocessing.to_json(),
            "mean": self.mean.tolist(),
            "deviation": self.deviation.tolist(),
            "validation": self.validation and self.validation.to_json(),
            "test": self.test and self.test.to_json(),
            "facts": dict(self.facts),
        }
        save_checkpoint(path, data, self.network.state_dict())

    @torch.no_grad()
    def _probabilities(self, inputs: Tensor) -> NDArray[np.float32]:
        device = next(self.network.parameters()).device
        logits = self.network(standardised(inputs, self.mean, self.deviation).to(device))
        return np.asarray(logits.softmax(1).cpu().numpy())


def load_model(path: str | Path, device: str = "cpu") -> Model:
    """Read what :meth:`Model.save` wrote. Nothing in the files can run code.

    Args:
        path: the folder or the ``.zip`` file.
        device: where to predict: ``cpu``, ``cuda`` or ``auto``.

    Raises:
        CheckpointError: if there is no model, or one that is damaged or of a newer version.
        ConfigurationError: if there is no such device.
    """
    place = choose_device(device)
    data, tensors = load_checkpoint(path)
    if data.get("kind") != KIND:
        raise CheckpointError(f"{path}: holds {data.get('kind')!r}, not a {KIND}")
    try:
        architecture = architecture_from_json(data["architecture"])
        preprocessing = Preprocessing.from_json(data["preprocessing"])
        network = Network(architecture.graph(len(data["classes"])), preprocessing.input_shape)
        network.load_state_dict(tensors)
        mean, deviation = (np.array(data[name], dtype=np.float32) for name in ("mean", "deviation"))
        if (
            not mean.shape == deviation.shape == preprocessing.input_shape[:1]
            or not np.isfinite([mean, deviation]).all()
        ):
            raise ValueError("needs a finite mean and deviation for every channel")
        return Model(
            architecture,
            tuple(data["classes"]),
            preprocessing,
            mean,
            deviation,
            network.to(place).eval(),
            data["validation"] and Scores.from_json(data["validation"]),
            data["test"] and Scores.from_json(data["test"]),
            data["facts"],
        )
    except (RlnasError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path}: the model is damaged: {one_line(error)}") from None


def standardised(inputs: Tensor, mean: NDArray[np.float32], deviation: NDArray[np.float32]) -> Tensor:
    """Inputs of shape (N, C, H, W), each channel shifted and scaled."""
    shift, scale = (torch.from_numpy(values).to(inputs.device)[:, None, None] for values in (mean, deviation))
    return (inputs - shift) / scale
