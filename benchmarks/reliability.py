"""Whether nothing is lost and nothing runs: faults injected for real into stores, checkpoints and training runs.

    python benchmarks/reliability.py            # all of it, about 15 minutes
    python benchmarks/reliability.py --quick    # a small form
    python benchmarks/reliability.py --only bit_flips torn_log

Exit status 1 if a figure is not what it must be. ``docs/reliability.md`` says what is done and why.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from reliability_damage import bit_flips, newer_versions
from reliability_loaders import refused_or_same
from reliability_store import full_disk, killed_writer, several_writers, torn_log
from reliability_training import stopped_training


@dataclass(frozen=True)
class Part:
    """One kind of fault.

    Args:
        inject: does it in a folder of its own and returns figures by name.
        full: the arguments at full size.
        quick: those of the small form.
        required: what figures must be.
    """

    inject: Callable[..., dict[str, Any]]
    full: Mapping[str, Any]
    quick: Mapping[str, Any]
    required: Mapping[str, Any]


PARTS: dict[str, Part] = {
    "killed_writer": Part(
        killed_writer,
        {"kills": 100},
        {"kills": 4},
        {"acknowledged and lost": 0, "kept in part": 0, "stores that don't open": 0, "stores with damage": 0},
    ),
    "full_disk": Part(
        full_disk,
        {"repeats": 20},
        {"repeats": 1},
        {
            "stopped without a named error": 0,
            "unreadable while full": 0,
            "did not go on": 0,
            "acknowledged and lost": 0,
            "stores with damage": 0,
        },
    ),
    "several_writers": Part(
        several_writers,
        {"writers": 4, "trials": 50},
        {"writers": 2, "trials": 5},
        {
            f"{kind}: {figure}": 0
            for kind in ("record", "append")
            for figure in ("acknowledged and lost", "kept in part", "faults in the store", "writers that failed")
        },
    ),
    "bit_flips": Part(
        bit_flips,
        {"flips": 1000},
        {"flips": 20},
        {"not found": 0, "without a seal: not found, other episodes": 0},
    ),
    "torn_log": Part(
        torn_log,
        {"lengths": 500},
        {"lengths": 12, "snapshots": 1},
        {"not a prefix": 0, "don't open": 0, "whole logs that lost something": 0},
    ),
    "refused_or_same": Part(
        refused_or_same,
        {"count": 1000},
        {"count": 5},
        {
            "another error": 0,
            "another content": 0,
            "hangs": 0,
            "canary sang": 0,
            "killed its process": 0,
            "canaries": 0,
        },
    ),
    "newer_versions": Part(newer_versions, {}, {}, {"that don't say what they need": 0}),
    "stopped_training": Part(
        stopped_training,
        {"stops": 20, "steps": 40_000, "longest": 2.0},
        {"stops": 1, "steps": 1_000, "longest": 0.1},
        {"runs that failed": 0, "runs with other weights": 0, "episodes that differ": 0},
    ),
}


def missed(part: Part, figures: Mapping[str, Any]) -> list[str]:
    """The figures that are not what they must be, one line each."""
    return [
        f"{name} is {figures[name]}, must be {value}" for name, value in part.required.items() if figures[name] != value
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small form that only shows that it works")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to do; by default all")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    told: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "versions": {
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            "torch": version("torch"),
            "numpy": version("numpy"),
        },
    }
    faults: list[str] = []
    print(json.dumps(told))
    for name in options.only:
        part = PARTS[name]
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            figures = part.inject(Path(folder), **(part.quick if options.quick else part.full))
        told[name] = {**figures, "seconds": time.perf_counter() - started}
        faults += [f"{name}: {line}" for line in missed(part, figures)]
        print(f"\n{name.replace('_', ' ')}, {told[name]['seconds']:.0f} s")
        for figure, value in figures.items():
            if isinstance(value, dict | list):
                lines = value if isinstance(value, list) else [f"{key}: {of}" for key, of in value.items()]
                print("\n".join([f"  {figure}", *(f"    {line}" for line in lines)]))
                continue
            shown = f"{value:.1f}" if isinstance(value, float) else value
            mark = "" if figure not in part.required else "  ok" if value == part.required[figure] else "  MISSED"
            print(f"  {figure:48}{shown}{mark}", flush=True)
        if options.json:
            options.json.write_text(json.dumps({**told, "missed": faults}, indent=1) + "\n")
    print("\n" + ("\n".join(faults) or "every figure is what it must be"))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
