"""The last stage: the architecture that a search found, made wide and trained to convergence on the user's data."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from rlnas.architecture import Architecture
from rlnas.checkpoint import MANIFEST
from rlnas.data_division import Division
from rlnas.device import available_threads, choose_device, is_out_of_memory, torch_threads
from rlnas.errors import RlnasError
from rlnas.model import Model, load_model
from rlnas.training_options import Epoch, FinalTraining
from rlnas.training_state import TrainingState, require_same
from rlnas.user_data import UserData
from rlnas.wide_network import widened

__all__ = ["Epoch", "FinalTraining", "train_fully", "widened"]

CHECKPOINT = "training"
"""Folder of the training state, in the model's folder until the model is there."""

SECONDS_BETWEEN_SAVES = 10.0

OnEpoch: TypeAlias = Callable[[Epoch], None]


def train_fully(
    architecture: Architecture,
    data: UserData,
    division: Division,
    config: FinalTraining,
    folder: str | Path,
    device: str = "cpu",
    stop: Callable[[], bool] = lambda: False,
    on_epoch: OnEpoch = lambda epoch: None,
) -> Model | None:
    """Train an architecture, or go on training it, and write the model to ``folder``.

    It is trained on the training part and keeps the weights that are best on the validation part. With ``refit``, new
    weights are then trained on both parts for as many passes, along a whole schedule of their own. The test part is
    scored once, in the end. An interrupted training goes on from its last checkpoint, which is at most an epoch, or 10
    seconds, old; without ``max_seconds`` it comes to the same weights (on the CPU, with as many threads).

    Args:
        architecture: as the search found it, of a space that can be widened; how wide it is trained, ``config.width``
            says.
        data: images or features.
        division: of the data.
        config: how.
        folder: for the checkpoints and then the model.
        device: ``cpu``, ``cuda`` or ``auto``.
        stop: asked before every step.
        on_epoch: is told of every epoch.

    Returns:
        The model, on the CPU; its facts are the versions, seed, data, division and epochs. None if ``stop`` said so
        before the end: call again to go on.

    Raises:
        ConfigurationError: if the network does not fit the data or has nothing to train, or there is no such device.
        CheckpointError: if the folder holds another training or model, or a damaged one.
        RlnasError: if the loss is not finite even in the first epoch, or the memory does not do. A later epoch that
            diverges ends its stage, and the best weights before it stay.
    """
    folder = Path(folder)
    training = TrainingState(architecture, data, division, config, choose_device(device))
    if (folder / MANIFEST).exists():
        model = load_model(folder)
        require_same(folder, model.facts.get("training"), training.identity)
        shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)
        return model
    if (folder / CHECKPOINT / MANIFEST).exists():
        training.restore(folder / CHECKPOINT)
    with torch_threads(config.threads or available_threads()):
        saved = time.monotonic()
        while not training.finished:
            try:
                epoch = training.run_epoch(stop)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                raise RlnasError(
                    f"training {training.architecture.text} takes more memory than there is, in batches of "
                    f"{config.batch}; choose a smaller batch or width"
                ) from None
            if epoch is None:
                return None
            if training.finished or time.monotonic() - saved >= SECONDS_BETWEEN_SAVES:
                training.save(folder / CHECKPOINT)
                saved = time.monotonic()
            on_epoch(epoch)
        model = training.model()
    model.save(folder)
    shutil.rmtree(folder / CHECKPOINT)
    return model
