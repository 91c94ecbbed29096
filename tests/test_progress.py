"""What is printed on the way."""

from __future__ import annotations

import io
import re

import pytest

from rlnas import progress as progress_module
from rlnas.progress import Progress


class Terminal(io.StringIO):
    """Standard error, where a person watches."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, as its only item; tests set it."""
    now = [1000.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_a_line_comes_every_half_minute(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("train", 100) as progress:
        for seconds in (10, 20, 29, 31, 40, 60, 62):
            clock[0] = 1000.0 + seconds
            progress.advance(10, 5, {"best": 0.5})
        lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["40/100", "70/100"]
    last = capsys.readouterr()
    assert last.err.count("\n") == 1  # the end is always told
    assert last.out == ""


def test_a_line_tells_figures_rate_time_and_what_is_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("search", 400) as progress:
        clock[0] += 100
        progress.advance(100, 50, {"best so far": 0.8125, "first": 0.25})
        assert capsys.readouterr().err == (
            "search: 100/400  best so far 0.812  first 0.250  0.5 evaluations/s  0:01:40  0:05:00 left\n"
        )


def test_work_done_before_does_not_count_as_speed(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("train", 1000, done=900) as progress:
        clock[0] += 30
        progress.advance(50, 10, {})
    assert "950/1000" in (line := capsys.readouterr().err.splitlines()[-1])
    assert line.endswith("0:00:30 left")


def test_nothing_is_left_at_the_end_and_never_less_than_nothing(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("train", 100) as progress:
        clock[0] += 5
        progress.advance(128, 1, {})
    assert capsys.readouterr().err == "train: 100/100  0.2 evaluations/s  0:00:05\n"
    with Progress("train", 100, done=128):
        pass
    assert capsys.readouterr().err == "train: 100/100  0.0 evaluations/s  0:00:00\n"


def test_after_an_error_only_the_error_speaks(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), Progress("train", 100):
        raise KeyError
    assert capsys.readouterr().err == ""


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("TERM", "xterm")
    with Progress("train", 100, done=20) as progress:
        progress.advance(30, 3, {"best": 0.75})
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert "train" in text
    assert "50/100" in text
    assert "best 0.750" in text
    assert capsys.readouterr().out == ""
