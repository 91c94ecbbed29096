"""Ctrl-C and ``kill`` as a question that a long job asks itself between two steps."""

from __future__ import annotations

import os
import signal

NOTICE = b"rlnas: stopping; the run is being saved\n"


class Interruption:
    """Within its ``with`` block, calling it answers "shall we stop?"; the second signal ends the program.

    Only for the main thread, as signal handlers are.

    Attributes:
        signal: the number of the signal that came, SIGINT or SIGTERM; 0 before that.
    """

    def __init__(self) -> None:
        self.signal = 0

    def __call__(self) -> bool:
        return self.signal != 0

    def __enter__(self) -> Interruption:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number
        # Not print(): the signal may have come in the middle of one, which is not re-entrant. On a terminal a bar may
        # stand in the line.
        os.write(2, b"\n" + NOTICE if os.isatty(2) else NOTICE)
