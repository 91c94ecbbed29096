"""The HTML report: complete, self-contained, harmless whatever the names, and quiet in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rlnas.report_html import write_report
from rlnas.results import Results
from rlnas.summary import summarise

from .comparison import make_results

SECTIONS = {"ranks", "curves", "end", "improvement", "chosen", "tasks", "about"}
NASTY = ("<script>alert(1)</script>", '_"quoted" & $dear$', "a name that is much too long for the legend of a plot")


class Page(HTMLParser):
    """The ids, elements, attributes and text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def values(self, *names: str) -> list[str]:
        return [value for name, value in self.attributes if name in names]


def report(results: Results, folder: Path) -> Path:
    path = folder / "report.html"
    write_report(summarise(results), path)
    return path


def test_a_report_has_every_section_and_plot(tmp_path: Path) -> None:
    page = Page(report(make_results(), tmp_path))
    assert set(page.values("id")) >= SECTIONS
    assert page.elements.count("svg") == 8
    for words in (
        "Comparison of 3 agents",
        "3 agents × 4 tasks × 3 runs × 6 evaluations",
        "against wall time",
        "Performance profiles",
        "rlnas bench --agents random,rl2",
        "versions.rlnas 0.1.0",
        "seeds 0 to 3",
        "splits a, b",
        "task 3",
    ):
        assert words in page.text


def test_a_report_needs_nothing_else(tmp_path: Path) -> None:
    page = Page(report(make_results(), tmp_path))
    assert "script" not in page.elements
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page.values("content")
    references = page.values("src", "href", "xlink:href", "action", "data", "poster")
    assert references
    assert all(reference.startswith(("#", "data:")) for reference in references)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "@import" not in page.text


def test_the_plots_of_a_page_share_no_id_and_refer_to_their_own(tmp_path: Path) -> None:
    page = Page(report(make_results(), tmp_path))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    referred = [value[1:] for value in page.values("xlink:href")]
    referred += re.findall(r"url\(#([^)]+)\)", " ".join(value for _, value in page.attributes))
    assert referred
    assert set(referred) <= set(ids)


def test_equal_summaries_make_equal_reports(tmp_path: Path) -> None:
    summary = summarise(make_results())
    for name in ("a", "b"):
        write_report(json.loads(json.dumps(summary)), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_names_are_text_and_nothing_more(tmp_path: Path) -> None:
    results = make_results(agents=NASTY)
    results = Results(
        tuple(f"<i>{task}</i>" for task in results.tasks),
        results.accuracy,
        results.seconds,
        results.best,
        results.mean,
        True,
        {agent: {"<u>&measure": measures["test accuracy"]} for agent, measures in results.chosen.items()},
        {"command": "bench '<b>' && true", "note": {"<u>": ["</td>"]}, "env": "<a href=x>"},
    )
    page = Page(report(results, tmp_path))
    assert not {"script", "u", "a"} & set(page.elements)
    for words in (*NASTY[:2], "<i>task 0</i>", "<u>&measure", "bench '<b>' && true", "note.<u>", "</td>", "<a href=x>"):
        assert words in page.text


def test_without_times_there_are_no_plots_against_time(tmp_path: Path) -> None:
    page = Page(report(make_results(timed=False), tmp_path))
    assert page.elements.count("svg") == 6
    assert "wall time" not in page.text


def test_one_design_of_one_agent_is_reported(tmp_path: Path) -> None:
    page = Page(report(make_results(agents=("only",), runs=1, tasks=1, designs=1), tmp_path))
    assert "improvement" not in page.values("id")
    assert "1 agent × 1 task × 1 run × 1 evaluation" in page.text
    assert "resample tasks" in page.text


def test_many_agents_on_many_tasks_stay_under_a_megabyte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlnas.summary.RESAMPLES", 50)
    monkeypatch.setattr("rlnas.summary.CURVE_RESAMPLES", 50)
    names = [f"agent number {i}" for i in range(20)]
    path = report(make_results(agents=names, runs=1, tasks=220, designs=200), tmp_path)
    assert path.stat().st_size < 1_000_000
    assert "The first 200 of 220 tasks" in Page(path).text


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def browse(path: Path, folder: Path) -> tuple[str, list[str], list[str]]:
    """Open a file in headless Chromium, which finds no other host.

    Returns:
        The page's DOM, the console's lines, and the addresses that the page asked for beside its own.
    """
    log = folder / "net.json"
    done = subprocess.run(
        [
            str(BROWSER),
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
            *("--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom"),
            *(f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}", path.as_uri()),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    # The browser's own requests have no initiator.
    events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    asked = [
        event["url"]
        for event in events
        if "url" in event and event.get("initiator", "not an origin") != "not an origin"
    ]
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line], asked


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH")
def test_a_browser_opens_it_without_an_error_or_a_request(tmp_path: Path) -> None:
    dom, console, asked = browse(report(make_results(), tmp_path), tmp_path)
    assert console == []
    assert [address for address in asked if not address.startswith("data:")] == []
    assert set(re.findall(r'<section id="(\w+)"', dom)) == SECTIONS
    assert dom.count("<svg") == 8


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH")
def test_the_browser_would_have_told(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text('<!DOCTYPE html><img src="http://elsewhere.test/x.png"><script>console.error("bad")</script>')
    _, console, asked = browse(page, tmp_path)
    assert any('"bad"' in line for line in console)
    assert any(address.startswith("http://elsewhere.test/") for address in asked)
