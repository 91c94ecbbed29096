"""Pictures of a trial in progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .trial import Trials

RENDER_MODES = ("ansi", "rgb_array")
MARGIN = 8
SIZE = (640, 200)
INK, PAPER = (30, 34, 42), (250, 250, 248)


def render_ansi(trials: Trials, row: int) -> str:
    """The task, the designs so far, and the design in progress, in five lines."""
    settings = trials.settings
    if not trials.tasks:
        return "no trial yet: call reset()"
    last = f"{trials.architecture[row]}  accuracy {trials.accuracy[row]:.3f}  {trials.status[row]}"
    return "\n".join(
        (
            f"task    {trials.task_name[row]} ({trials.tasks[row].family})",
            f"design  {trials.design[row]} of {settings.designs_per_trial} done",
            f"best    {trials.best[row]:.3f}",
            f"last    {last if trials.ended[row] else '-'}",
            f"now     {trials.partial.progress(row)}",
        )
    )


def render_rgb(text: str) -> NDArray[np.uint8]:
    """The text on a sheet of fixed size, uint8 of shape (H, W, 3)."""
    from PIL import Image, ImageDraw

    sheet = Image.new("RGB", SIZE, PAPER)
    ImageDraw.Draw(sheet).multiline_text((MARGIN, MARGIN), text, fill=INK, spacing=MARGIN)
    return np.asarray(sheet)
