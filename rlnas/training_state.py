"""A full training between two of its epochs: what it has come to, how it goes on, and how it is kept."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

import rlnas
from rlnas.architecture import Architecture
from rlnas.augmentation import augment
from rlnas.checkpoint import load_checkpoint, one_line, save_checkpoint
from rlnas.data_division import Division
from rlnas.errors import CheckpointError, DataError, RlnasError, one_of
from rlnas.graph import count_flops, count_parameters
from rlnas.model import PREDICTED_AT_ONCE, Model, standardised
from rlnas.network import Network
from rlnas.preprocessing import Preprocessing, preprocessing_of
from rlnas.scores import Scores, score_predictions
from rlnas.training_options import PRECISIONS, Epoch, FinalTraining
from rlnas.user_data import UserData
from rlnas.wide_network import Limits, drawn_weights, require_trainable, widened

RESERVE = 0.05
"""Fraction of ``max_seconds`` that is left for scoring and writing the model."""

MOMENTUM = 0.1
"""Share of the newest batch in the statistics of a batch norm."""

LEAST_REFIT = 0.5
"""Fraction of the passes it was to make that a refit must have had time for."""

ROUNDING = 1e-9
"""What sums of fractions of a schedule may miss."""

CLIP = 1.0
"""Longer gradients are cut to this norm."""


class TrainingState:
    """The state of a training between two epochs; see :func:`rlnas.final_training.train_fully`.

    Attributes:
        identity: what a checkpoint and a model must have been made with to belong to this training, as JSON.
        history: the epochs so far.
    """

    def __init__(
        self,
        architecture: Architecture,
        data: UserData,
        division: Division,
        config: FinalTraining,
        device: torch.device,
    ) -> None:
        self.data, self.division, self.config, self.device = data, division, config, device
        width = require_trainable(architecture, Limits(config.width), data.ways, data.input_shape, device)
        self.found, self.architecture = architecture, widened(architecture, width)
        self.preprocessing = preprocessing_of(data, division.train)
        self.mean, self.deviation = _channel_statistics(self.preprocessing, data, division.train)
        identity = {
            "architecture": architecture.to_json(),
            "config": {option: value for option, value in asdict(config).items() if option != "threads"},
            "data": data.digest,
            "division": _digest(division),
        }
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))  # as it will be read back: lists, not tuples
        usual = "bfloat16" if computes_bfloat16(device) else "float32"
        self.precision = usual if config.precision == "auto" else config.precision
        self.history: list[Epoch] = []
        self.best: dict[str, Tensor] = {}
        self.validation: Scores | None = None
        self._begin("train")

    @property
    def finished(self) -> bool:
        return self.stage == "done"

    def run_epoch(self, stop: Callable[[], bool]) -> Epoch | None:
        """Train one pass and move on to the next stage where this one is over; None if ``stop`` said so on the way.

        Raises:
            RlnasError: if the loss is not finite and there are no weights from before.
        """
        past = [epoch for epoch in self.history if epoch.stage == self.stage]
        rng = np.random.default_rng([self.config.seed, self.stage == "refit", len(past)])
        rows = rng.permutation(self._rows)
        batches = np.array_split(rows, math.ceil(len(rows) / self.config.batch))
        seeds = rng.integers(2**63, size=len(batches)).tolist()
        total, done = 0.0, 0
        self.network.train()
        for step, (batch, seed) in enumerate(zip(batches, seeds, strict=True)):
            progress = self._progress(len(past) + step / len(batches))
            if done and self._is_over(progress):
                break
            if stop():
                return None
            learning_rate = self.config.learning_rate * rate(progress, self.config.warmup)
            total += self._step(batch, seed, learning_rate) * len(batch)
            done += len(batch)
        position = len(past) + done / len(rows)
        judged = self.stage == "train" or self._is_over(self._progress(position))
        scores = self._validate() if judged and math.isfinite(total) else None
        diverged = scores is None if judged else not math.isfinite(total)
        if diverged and not self.best:
            raise RlnasError(f"the training of {self.architecture.text} diverged; try a smaller learning_rate")
        accuracy, loss = scores if scores is not None and self.stage == "train" else (None, None)
        epoch = Epoch(
            stage=self.stage,
            position=position,
            progress=1.0 if diverged else min(1.0, self._progress(position)),
            loss=None if diverged else total / done,
            validation_loss=loss,
            validation_accuracy=accuracy,
            seconds=self._elapsed() - sum(e.seconds for e in past),
        )
        self.history.append(epoch)
        self._move_on(epoch)
        return epoch

    def save(self, folder: Path) -> None:
        """Write the state, from which :meth:`restore` goes on."""
        tensors = {f"best.{name}": value for name, value in self.best.items()}
        if not self.finished:
            tensors |= {f"network.{name}": value for name, value in self.network.state_dict().items()}
            for number, values in self.optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser.{number}.{name}": value for name, value in values.items()}
        data = {
            "identity": self.identity,
            "stage": self.stage,
            "precision": self.precision,
            "history": [asdict(epoch) for epoch in self.history],
            "validation": self.validation and self.validation.to_json(),
        }
        save_checkpoint(folder, data, tensors)

    def restore(self, folder: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: if it is damaged or of another training.
        """
        data, tensors = load_checkpoint(folder)
        require_same(folder, data.get("identity"), self.identity)
        try:
            self.history = [Epoch(**entry) for entry in data["history"]]
            self.precision = one_of("precision", data["precision"], PRECISIONS[1:])  # of the machine it was begun on
            self.validation = None if data["validation"] is None else Scores.from_json(data["validation"])
            self.best = {name: value.to(self.device) for name, value in _under("best.", tensors).items()}
            self._begin(data["stage"])
            if self.finished:
                return
            self.network.load_state_dict(_under("network.", tensors))
            moments: dict[int, dict[str, Tensor]] = {}
            for name, value in _under("optimiser.", tensors).items():
                number, _, moment = name.partition(".")
                moments.setdefault(int(number), {})[moment] = value
            self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise CheckpointError(f"{folder}: the training state is damaged: {one_line(error)}") from None

    def model(self) -> Model:
        """The model with the best weights, on the CPU, scored on the test part."""
        network = self._network_of(self.best).to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        model = self._model(network)
        rows = self.division.test
        test = score_predictions(model.predict_proba(self.data.x[rows]), self.data.y[rows]) if len(rows) else None
        return replace(model, validation=self.validation, test=test, facts=self._facts())

    def _begin(self, stage: str) -> None:
        """Take up a stage, from new weights."""
        self.stage = stage
        if stage == "done":
            return
        config, data, division = self.config, self.data, self.division
        budget = math.inf if config.max_seconds is None else config.max_seconds * (1 - RESERVE)
        seconds = [epoch.seconds for epoch in self.history if epoch.stage == stage]
        if stage == "train":
            self._rows = division.train
            self._horizon: float = config.epochs_for(len(division.train))
            both = 2 * len(division.train) + len(division.validation)
            self._seconds = budget * len(division.train) / both if config.refit else budget
        else:
            best = self._best_epoch()
            self._rows, self._horizon = np.concatenate([division.train, division.validation]), best.position
            self._seconds = budget - sum(e.seconds for e in self.history if e.stage == "train")
        self.network = self._network_of(drawn_weights(self.architecture, data.ways, data.input_shape, config.seed))
        kernels = [p for p in self.network.parameters() if p.ndim > 1]
        others = [p for p in self.network.parameters() if p.ndim == 1]
        groups = [{"params": kernels, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups)
        self._started = time.monotonic() - sum(seconds)

    def _move_on(self, epoch: Epoch) -> None:
        """Keep the weights if they are the best, and go to the next stage if this one is over."""
        best, over = self._best_epoch(), self._is_over(epoch.progress)
        if epoch is best or (over and self.refitted):
            self.best = {name: value.clone() for name, value in self.network.state_dict().items()}
        if self.stage == "refit":
            if over:
                self._begin("done")
        elif over or epoch.progress - best.progress >= self.config.patience - ROUNDING:
            model, rows = self._model(self._network_of(self.best)), self.division.validation
            self.validation = score_predictions(model.predict_proba(self.data.x[rows]), self.data.y[rows])
            self._begin("refit" if self.config.refit else "done")

    @property
    def refitted(self) -> bool:
        """Whether a refit is over and worth more than the weights before it: it did not diverge, and had the time."""
        last = self.history[-1]
        return (
            last.stage == "refit"
            and last.loss is not None
            and last.position >= LEAST_REFIT * self._best_epoch().position
        )

    def _best_epoch(self) -> Epoch:
        """The epoch with the best validation accuracy; of equals, that with the lowest loss."""
        epochs = [e for e in self.history if e.validation_accuracy is not None and e.validation_loss is not None]
        return max(epochs, key=lambda e: (e.validation_accuracy, -(e.validation_loss or 0.0)))

    def _progress(self, position: float) -> float:
        """How much of the stage's schedule is over after so many passes: by passes or by time, whichever is more."""
        return max(position / self._horizon, self._elapsed() / self._seconds if self._seconds > 0 else 1.0)

    def _is_over(self, progress: float) -> bool:
        return progress >= 1 - ROUNDING

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _step(self, rows: NDArray[np.int64], seed: int, learning_rate: float) -> float:
        """One gradient step on a batch; its loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        images = torch.from_numpy(self.preprocessing(self.data.x[rows])).to(self.device)
        if self.data.kind == "images":
            images = augment(images, self.config.augmentation, seed)
        images = standardised(images, self.mean, self.deviation).contiguous(memory_format=torch.channels_last)
        labels = torch.from_numpy(self.data.y[rows]).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            logits = self.network(images)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.config.label_smoothing)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        self.optimiser.step()
        return loss.item()

    def _validate(self) -> tuple[float, float] | None:
        """Accuracy and loss on the validation part; None if answers are not finite."""
        rows = self.division.validation
        y = self.data.y[rows]
        try:
            probabilities = self._model(self.network.eval()).predict_proba(self.data.x[rows])
        except DataError:
            return None
        truth = np.maximum(probabilities[np.arange(len(y)), y], np.finfo(np.float32).tiny)
        return float((probabilities.argmax(1) == y).mean()), float(-np.log(truth).mean())

    def _model(self, network: Network) -> Model:
        network.eval()
        return Model(self.architecture, self.data.classes, self.preprocessing, self.mean, self.deviation, network)

    def _network_of(self, weights: Mapping[str, Tensor]) -> Network:
        """A network with this state, whose batch norms average over batches, where it is to be trained."""
        network = Network(self.architecture.graph(self.data.ways), self.data.input_shape)
        network.load_state_dict(weights)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = MOMENTUM
        placed: Network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return placed

    def _facts(self) -> dict[str, Any]:
        graph, shape = self.architecture.graph(self.data.ways), self.data.input_shape
        parts = {part: len(getattr(self.division, part)) for part in ("train", "validation", "test")}
        return {
            "training": self.identity,
            "architecture": self.found.text,
            "data": {"name": self.data.name, "kind": self.data.kind, "digest": self.data.digest, **parts},
            "epochs": [asdict(epoch) for epoch in self.history],
            "seconds": sum(epoch.seconds for epoch in self.history),
            "parameters": count_parameters(graph, shape),
            "flops": count_flops(graph, shape),
            "device": self.device.type,
            "precision": self.precision,
            "refitted": self.refitted,
            "threads": torch.get_num_threads(),
            "versions": {
                "rlnas": rlnas.__version__,
                "python": platform.python_version(),
                "numpy": np.__version__,
                "torch": str(torch.__version__),
            },
        }


def rate(progress: float, warmup: float) -> float:
    """The learning rate at a place of the schedule, relative to its highest: a line up, then a cosine down to 0."""
    if progress < warmup:
        return min(1.0, max(progress, 1e-3) / warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / max(1 - warmup, 1e-9))))


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies matrices in bfloat16 by itself, as newer GPUs and some x86 processors do."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # newer than the oldest torch that serves
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def require_same(folder: Path, found: Any, expected: Mapping[str, Any]) -> None:
    """Make sure that what lies in ``folder`` belongs to the training of that identity.

    Raises:
        CheckpointError: naming the first thing that differs.
    """
    for part, value in expected.items():
        if not isinstance(found, Mapping) or found.get(part) != value:
            raise CheckpointError(f"{folder}: holds a training with another {part}; choose another folder")


def _channel_statistics(
    preprocessing: Preprocessing, data: UserData, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation of every channel of the images; 0 and 1 for features, which are standardised already."""
    channels = data.input_shape[0]
    if data.kind == "features":
        return np.zeros(channels, dtype=np.float32), np.ones(channels, dtype=np.float32)
    sums = np.zeros((2, channels))
    for start in range(0, len(rows), PREDICTED_AT_ONCE):
        images = preprocessing(data.x[rows[start : start + PREDICTED_AT_ONCE]]).astype(np.float64)
        sums += images.sum((0, 2, 3)), (images**2).sum((0, 2, 3))
    mean, square = sums / (len(rows) * math.prod(data.input_shape[1:]))
    deviation = np.sqrt(np.maximum(square - mean**2, 1e-8))
    return mean.astype(np.float32), deviation.astype(np.float32)


def _digest(division: Division) -> str:
    sha = hashlib.sha256()
    for part in (division.train, division.validation, division.test):
        sha.update(len(part).to_bytes(8, "little") + np.ascontiguousarray(part, dtype="<i8").tobytes())
    return sha.hexdigest()


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
