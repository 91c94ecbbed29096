"""Where networks are trained: the device, its memory, and one thread of it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from rlnas.errors import ConfigurationError

if TYPE_CHECKING:
    import torch


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Lets torch use so many threads: sums are split by threads, so their last digits depend on how many there are."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread() -> AbstractContextManager[None]:
    """Lets torch use one thread."""
    return torch_threads(1)


def available_threads() -> int:
    """How many threads a job that is alone may use: what OMP_NUM_THREADS says, else one for each core it may run on."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal() and int(given):
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu`` or ``cuda`` names.

    Raises:
        ConfigurationError: if it is none of these, or CUDA is asked for where there is none.
    """
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise ConfigurationError(f"device must be auto, cpu or cuda, got {name!r}")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigurationError("device cuda was asked for, but torch finds no CUDA device; use cpu or auto")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of a device does not do."""
    import torch

    # torch reports a lack of CPU memory as a plain RuntimeError
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def arithmetic(device: torch.device) -> dict[str, str]:
    """What the last digits of a result depend on beside the program: libraries, the processor, and how they round."""
    import torch

    found = {
        "torch": str(torch.__version__),
        **_machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "products": torch.get_float32_matmul_precision(),
    }
    if device.type == "cuda":  # random starts are drawn on the CPU nevertheless
        found |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}  # type: ignore[no-untyped-call]
        found |= {"gpu": torch.cuda.get_device_name(device)}
    return found


@cache
def _machine() -> dict[str, str]:
    """The processor's model is in it: libraries choose their algorithms, and where they cut sums, by it."""
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = models[0] if models else platform.processor()
    return {"libc": "-".join(platform.libc_ver()), "machine": platform.machine(), "processor": processor}


def free_memory(device: torch.device) -> int:
    """Bytes that can be had on a device without swapping; of a system that does not tell, half of what it has."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    table = Path("/proc/meminfo")
    if table.exists():
        entries = dict(line.split(":") for line in table.read_text().splitlines())
        return int(entries["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
