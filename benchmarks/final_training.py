"""How well and how fast one given architecture is trained fully: for choosing the defaults of ``FinalTraining``.

    python benchmarks/final_training.py mnist/mnist.npz "conv5x5-8 > max-pool > conv5x5-8 > max-pool" --threads 2
    python benchmarks/final_training.py sign_digits/sign_digits32.npz "conv3x3-8 > max-pool" --set max_seconds=120

The data lies in the folder that the environment variable RLNAS_DATA names. Prints every epoch to standard error, and
accuracy, seconds and images a second as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlnas.data_division import divide
from rlnas.final_training import Epoch, FinalTraining, train_fully
from rlnas.search_space import CellSpace, ChainSpace
from rlnas.user_data import read_data

CHAIN = ChainSpace(8, widths=(8,), dense_widths=(16, 32, 64, 128))
CELL = CellSpace(width=8)


def parsed(text: str) -> tuple[str, Any]:
    """``option=value``, with the value in JSON or a word."""
    option, _, value = text.partition("=")
    try:
        return option, json.loads(value)
    except json.JSONDecodeError:
        return option, value


def show(epoch: Epoch) -> None:
    accuracy = "" if epoch.validation_accuracy is None else f", validation {epoch.validation_accuracy:.4f}"
    line = f"{epoch.stage} {epoch.position:g} ({epoch.progress:.0%}): loss {epoch.loss:.4f}{accuracy}"
    print(f"{line}, {epoch.seconds:.1f} s", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a file under RLNAS_DATA")
    parser.add_argument("architecture", help="of the chain space (widths 8, units 16 to 128), or a cell")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--division-seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], type=parsed, metavar="OPTION=VALUE", help="of FinalTraining")
    arguments = parser.parse_args()
    data = read_data(Path(os.environ["RLNAS_DATA"]) / arguments.data)
    division = divide(data, seed=arguments.division_seed)
    config = replace(FinalTraining(threads=arguments.threads), **dict(arguments.set))
    space = CELL if arguments.architecture.startswith("|") else CHAIN
    epochs: list[Epoch] = []

    def note(epoch: Epoch) -> None:
        epochs.append(epoch)
        show(epoch)

    cpu = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        model = train_fully(
            space.parse(arguments.architecture), data, division, config, folder, arguments.device, on_epoch=note
        )
    assert model is not None
    assert model.validation is not None
    first = [epoch for epoch in epochs if epoch.stage == "train"]
    seconds = sum(epoch.seconds for epoch in epochs)
    result = {
        "architecture": arguments.architecture,
        "data": arguments.data,
        "parameters": model.facts["parameters"],
        "validation": model.validation.accuracy,
        "test": model.test and model.test.accuracy,
        "interval": model.test and model.test.interval,
        "calibration_error": model.test and model.test.calibration_error,
        "epochs": first[-1].position,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "images_per_second": round(len(division.train) * first[-1].position / sum(e.seconds for e in first)),
        "precision": model.facts["precision"],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
