"""The viewer: one trial, or two side by side, as one HTML file to play, scrub and compare, which loads nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from rlnas.episode import DesignEpisode
from rlnas.errors import ConfigurationError
from rlnas.evaluator import Status
from rlnas.html_page import page, table
from rlnas.layered import STYLE as DRAWING_STYLE
from rlnas.layered import draw_boxes
from rlnas.retracing import retracing_of
from rlnas.viewer_data import Numbered, TrialRecord, final_boxes, result_line, trial_data

MOST_TRIALS = 2
"""Trials that are shown side by side."""
SPEEDS = {"½×": 0.5, "1×": 1, "2×": 2, "5×": 5, "10×": 10}
KEYS = {
    "Space": "play or pause",
    "← →": "previous, next decision",
    "Shift ← →, PageUp PageDown": "previous, next design",
    "Home, End": "first, last decision",
    "?": "show these keys",
}
ICONS = {
    "previous-design": "M3 3v10M13 3 6 8l7 5z",
    "back": "M11 3 4 8l7 5z",
    "play": "M4 2l10 6-10 6z",
    "on": "M5 3l7 5-7 5z",
    "next-design": "M13 3v10M3 3l7 5-7 5z",
}
BUTTONS = {
    "previous-design": "Previous design",
    "back": "Step back",
    "play": "Play",
    "on": "Step on",
    "next-design": "Next design",
}
__all__ = ["TrialRecord", "episode_html", "trial_page"]


def trial_page(trials: Sequence[TrialRecord], title: str) -> str:
    """The viewer's page.

    Args:
        trials: one, or two to compare; they share a scrubber, by the number of the design.
        title: text.

    Raises:
        ConfigurationError: if there are more trials or none, or a trial's space cannot be made here.
    """
    if not 1 <= len(trials) <= MOST_TRIALS:
        raise ConfigurationError(f"trials must be 1 to {MOST_TRIALS}, got {len(trials)}")
    drawings = Numbered()
    data = [trial_data(record, drawings) for record in trials]
    text = json.dumps({"trials": data}, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    content = "".join(
        (
            _head(trials, title),
            _player(),
            f'<div class="trials {"one" if len(trials) == 1 else "two"}">',
            _curve(trials),
            *(_trial(record, number) for number, record in enumerate(trials)),
            "</div>",
            '<div class="tables">',
            *(_designs(record, told["designs"]) for record, told in zip(trials, data, strict=True)),
            "</div>",
            _help(),
            f"<template id='drawings'>{''.join(drawings)}</template>",
            # In a script element nothing but "<" can end it or begin a comment.
            f'<script type="application/json" id="data">{text.replace("<", chr(92) + "u003c")}</script>',
        )
    )
    style, script = ((Path(__file__).parent / f"viewer.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    return page(title, content, DRAWING_STYLE + style, script)


def episode_html(episode: DesignEpisode) -> str:
    """A design for a notebook: its drawing, its decisions and what it was worth.

    Raises:
        ConfigurationError: if the episode's space cannot be made here.
    """
    told = retracing_of(episode.env).tell(episode)
    cells = (
        (escape(step.step.partition(": ")[2]), escape(step.choice), str(mask.count("1")))
        for step, mask in zip(told, episode.masks, strict=True)
    )
    rows = "".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in cells)
    drawing = draw_boxes(final_boxes(episode), episode.architecture)
    return f"""<div style="display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start">
{drawing}<div>
<p><b>{escape(episode.agent)}</b>: trial {episode.trial}, design {episode.design}<br>{escape(episode.task)}</p>
<table><thead><tr><th>decision</th><th>choice</th><th>legal</th></tr></thead><tbody>{rows}</tbody></table>
<p>accuracy <b>{episode.evaluation.accuracy:.4f}</b>, best so far {episode.best:.4f},
reward {sum(episode.rewards):.4f}<br>
{escape(result_line(episode.evaluation))}</p>
</div></div>
"""


def _head(trials: Sequence[TrialRecord], title: str) -> str:
    tasks = list(dict.fromkeys(record.episodes[0].task for record in trials))
    envs = list(dict.fromkeys(str(record.episodes[0].env.get("id", "")) for record in trials))
    where = " · ".join(escape(part) for part in (*envs, *tasks) if part)
    return f"""<header>
<h1>{escape(title)}</h1>
<p class="soft">{where}</p>
<noscript><style>.player, .trials {{ display: none }}</style>
<p>Without JavaScript only the tables of designs are shown.</p></noscript>
</header>
"""


def _player() -> str:
    buttons = "".join(
        f'<button type="button" id="{name}" aria-label="{label}" title="{label}"><svg viewBox="0 0 16 16" '
        f'aria-hidden="true"><path d="{ICONS[name]}"/></svg></button>'
        for name, label in BUTTONS.items()
    )
    speeds = "".join(
        f'<option value="{speed}"{" selected" if speed == 1 else ""}>{name}</option>' for name, speed in SPEEDS.items()
    )
    return f"""<div class="player" role="group" aria-label="Player">
<div class="buttons">{buttons}</div>
<label class="speed"><span class="unseen">Speed</span><select id="speed">{speeds}</select></label>
<p id="where"></p>
<button type="button" id="keys" aria-haspopup="dialog" title="Keys">? <span class="wide-only">Keys</span></button>
<input type="range" id="scrubber" min="0" value="0" step="1" aria-label="Decision">
<p id="live" class="unseen" aria-live="polite"></p>
</div>
"""


def _curve(trials: Sequence[TrialRecord]) -> str:
    legend = "".join(
        f'<li class="k{number}"><i class="dot"></i>{escape(record.label)}</li>' for number, record in enumerate(trials)
    )
    is_failed = (episode.evaluation.status is not Status.OK for record in trials for episode in record.episodes)
    failed = '<li><i class="failed"></i>failed</li>' if any(is_failed) else ""
    return f"""<section class="curve" aria-labelledby="curve-title">
<h2 id="curve-title">Accuracy of each design</h2>
<ul class="legend">{legend}<li><i class="line"></i>best so far</li>{failed}</ul>
<div id="curve"></div>
</section>
"""


def _trial(record: TrialRecord, number: int) -> str:
    return f"""<section class="trial k{number}" aria-labelledby="trial-{number}">
<h2 id="trial-{number}"><i class="dot"></i>{escape(record.label)}</h2>
<p class="decision" data-slot="decision"></p>
<div class="stage">
<div class="design"><div class="drawing" data-slot="drawing"></div></div>
<div class="mind">
<dl>
<div><dt>value estimate</dt><dd data-slot="value"></dd></div>
<div><dt>reward</dt><dd data-slot="reward"></dd></div>
<div><dt>accuracy</dt><dd data-slot="accuracy"></dd></div>
<div><dt>best so far</dt><dd data-slot="best"></dd></div>
</dl>
<h3 data-slot="heading"></h3>
<ol class="bars" data-slot="bars"></ol>
<p class="soft note" data-slot="note"></p>
</div>
</div>
<p class="changes" data-slot="changes"></p>
<p class="soft result" data-slot="result"></p>
</section>
"""


def _designs(record: TrialRecord, told: Sequence[dict[str, Any]]) -> str:
    """The table that says what the drawings and the curve show."""
    rows = [
        [
            f'<a href="#{i}.{len(episode.actions)}">{i}</a>',
            escape(design["steps"][-1]["design"]) + ("" if episode.architecture else " <em>(an illegal choice)</em>"),
            f"{episode.evaluation.accuracy:.4f}",
            f"{episode.best:.4f}",
            f"{sum(episode.rewards):.4f}",
            escape(str(episode.evaluation.status)),
        ]
        for i, (episode, design) in enumerate(zip(record.episodes, told, strict=True), start=1)
    ]
    headings = ["design", "decisions", "accuracy", "best so far", "reward", "status"]
    return f"""<details><summary>All designs of {escape(record.label)}</summary>
{table(headings, rows, escape(record.episodes[0].task), "designs")}</details>
"""


def _help() -> str:
    rows = "".join(f"<div><dt>{keys}</dt><dd>{words}</dd></div>" for keys, words in KEYS.items())
    return f"""<dialog id="help" aria-labelledby="help-title">
<h2 id="help-title">Keys</h2>
<dl>{rows}</dl>
<form method="dialog"><button>Close</button></form>
</dialog>
"""
