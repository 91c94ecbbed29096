"""The report of a comparison: one HTML file that needs nothing else, neither scripts nor the network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from rlnas import plots
from rlnas.html_page import figure, page, table
from rlnas.summary import baseline_of, by_rank

MOST_TASKS = 200
"""Rows of the table of tasks; the summary has them all."""
MOST_COLUMNS = 8
"""Tasks that are shown side by side."""


def write_report(summary: Mapping[str, Any], path: Path) -> None:
    """Write the report.

    Args:
        summary: as made by :func:`rlnas.summary.summarise`, or read from its JSON.
        path: of the HTML file, which is replaced.
    """
    timed = any(row["against_seconds"]["seconds"][-1] > 0 for row in summary["agents"].values())
    sections = [
        _head(summary),
        _curves(summary, timed),
        _end(summary),
        _improvement(summary) if len(summary["agents"]) > 1 else "",
        _chosen(summary),
        _tasks(summary),
        _about(summary["about"]) if summary["about"] else "",
    ]
    title = f"rlnas: comparison of {_count(len(summary['agents']), 'agent')}"
    path.write_text(page(title, "".join(sections)), encoding="utf-8")


def _head(summary: Mapping[str, Any]) -> str:
    agents, shown, interval = summary["agents"], summary["budgets"], summary["interval"]
    env = summary["about"].get("env")
    size = " × ".join(
        (
            _count(len(agents), "agent"),
            _count(len(summary["tasks"]), "task"),
            _count(summary["runs"], "run"),
            _count(summary["evaluations"], "evaluation"),
        )
    )
    best = "the best design in the table" if summary["best_is_known"] else "the best design that any agent found here"
    headings = [
        "agent",
        "mean rank",
        "IQM of score",
        *(f"regret<br>at {n:,}" for n in shown),
        "last design<br>− first design",
    ]
    rows = [
        [
            _agent(summary, agent),
            _interval(row["rank"], ".2f"),
            _interval(row["end"]["iqm"]),
            *(_minus(f"{row['normalised_regret']['value'][n - 1]:.3f}") for n in shown),
            _interval(row["last_minus_first"], "+.3f"),
        ]
        for agent, row in by_rank(summary)
    ]
    note = (
        f"Rank among the agents in the same run on the same task after {_count(summary['evaluations'], 'evaluation')}"
        ", 1 at best; ties share the mean of their ranks. The best mean rank first. The regret is normalised."
    )
    return f"""<header>
<h1>Comparison of {_count(len(agents), "agent")}{f" in {escape(str(env))}" if env else ""}</h1>
<p class="soft">{size}</p>
<p>The <em>regret</em> of a run is how much better {best} is than the run's own best so far; <em>normalised</em> regret
divides that by how much better it is than a random design on average. The <em>score</em> is 1 minus normalised regret:
1 is the best, 0 is as good as one random design. IQM is the interquartile mean, over the middle half of all runs on all
tasks.</p>
<p>Intervals are {100 * interval["level"]:g}% stratified bootstrap intervals that resample {interval["unit"]}
({interval["resamples"]:,} resamples; {interval["curve_resamples"]:,} in curves, profiles and pairs of agents).</p>
</header>
<section id="ranks">
<h2>Ranks</h2>
{table(headings, rows, note)}
</section>
"""


def _curves(summary: Mapping[str, Any], timed: bool) -> str:
    drawn = [
        figure(
            "Interquartile mean of the score",
            "against evaluations, with intervals",
            plots.against_evaluations(summary, "iqm", "IQM of score"),
        ),
        figure(
            "Mean normalised regret",
            "against evaluations, with intervals; lower is better",
            plots.against_evaluations(summary, "normalised_regret", "normalised regret"),
        ),
        figure(
            "Best accuracy so far",
            "against evaluations, mean over runs and tasks",
            plots.against_evaluations(summary, "best_so_far", "best accuracy so far"),
        ),
    ]
    if timed:
        drawn += [
            figure(
                "Best accuracy so far",
                "against wall time, once every trial has its first design",
                plots.against_seconds(summary, "best_so_far", "best accuracy so far"),
            ),
            figure(
                "Mean normalised regret",
                "against wall time, with intervals; lower is better",
                plots.against_seconds(summary, "normalised_regret", "normalised regret"),
            ),
        ]
    drawn.append(
        figure(
            "Performance profiles",
            f"share of runs beyond each score after {_count(summary['evaluations'], 'evaluation')}; higher is better",
            plots.profiles(summary),
        )
    )
    return f'<section id="curves">\n<h2>Search</h2>\n<div class="plots">{"".join(drawn)}</div>\n</section>\n'


def _end(summary: Mapping[str, Any]) -> str:
    aggregates = figure(
        "Aggregates of the score",
        "dots with intervals; a high score is good, and a small optimality gap",
        plots.aggregates(summary),
        "wide",
    )
    return f'<section id="end">\n<h2>At the end of the search</h2>\n{aggregates}\n</section>\n'


def _improvement(summary: Mapping[str, Any]) -> str:
    agents, baseline = [agent for agent, _ in by_rank(summary)], baseline_of(summary)
    rows = [
        [_agent(summary, agent), *("" if other == agent else _heat(row["versus"][other]) for other in agents)]
        for agent, row in by_rank(summary)
    ]
    matrix = table(
        ["row over column", *map(escape, agents)],
        rows,
        "Chance that a run of the row's agent ends with a higher score than one of the column's, on a task at random; "
        "a tie is half a win. Bold: its interval, which the mouse shows, excludes one half.",
        "upright heat",
    )
    over_baseline = figure(
        f"Probability of improvement over {baseline}",
        "with intervals; right of the line is better",
        plots.improvement(summary, baseline),
    )
    shown = summary["budgets"]
    differences = table(
        ["agent", *(f"at {n:,}" for n in shown)],
        [
            [
                _agent(summary, agent),
                *(_interval(_at(row["versus"][baseline]["score_difference"], k), "+.3f") for k in range(len(shown))),
            ]
            for agent, row in by_rank(summary)
            if agent != baseline
        ],
        f"Mean score minus that of {escape(baseline)} in the same run on the same task, after so many evaluations.",
    )
    return f"""<section id="improvement">
<h2>Probability of improvement</h2>
{matrix}
{over_baseline}
{differences}
</section>
"""


def _chosen(summary: Mapping[str, Any]) -> str:
    measures = list(dict.fromkeys(measure for row in summary["agents"].values() for measure in row["chosen"]))
    if not measures:
        return ""
    tasks = summary["tasks"] if len(summary["tasks"]) <= MOST_COLUMNS else []
    rows = []
    for agent, row in by_rank(summary):
        cells = [_agent(summary, agent)]
        for measure in measures:
            entry = row["chosen"].get(measure)
            if entry is None:
                cells += [""] * (1 + len(tasks))
                continue
            cells.append(_plus_minus(entry["value"], entry["std"]) + _ends(entry))
            if tasks:
                cells += map(_plus_minus, entry["tasks"]["mean"], entry["tasks"]["std"])
        rows.append(cells)
    headings = [escape(measure) + of for measure in measures for of in ("", *(f"<br>{escape(task)}" for task in tasks))]
    note = "What the chosen designs are worth: mean over tasks ± its standard deviation over runs"
    note += (
        ", the mean's interval, and mean ± standard deviation for each task." if tasks else ", and the mean's interval."
    )
    return f"""<section id="chosen">
<h2>Chosen designs</h2>
{table(["agent", *headings], rows, note)}
</section>
"""


def _tasks(summary: Mapping[str, Any]) -> str:
    agents, tasks = dict(by_rank(summary)), summary["tasks"]
    rows = []
    for t, task in enumerate(tasks[:MOST_TASKS]):
        found = [f"{row['tasks']['best_so_far'][t]:.3f}" for row in agents.values()]
        rows.append(
            [
                escape(task),
                f"{summary['random_mean'][t]:.3f}",
                f"{summary['best'][t]:.3f}",
                *(f"<b>{value}</b>" if value == max(found) else value for value in found),
            ]
        )
    note = "Best accuracy at the end, mean over runs; bold: the highest of the agents'."
    if len(tasks) > MOST_TASKS:
        note += f" The first {MOST_TASKS} of {len(tasks):,} tasks; summary.json has all."
    of_tasks = table(["task", "random mean", "best", *map(escape, agents)], rows, note, "upright")
    return f"""<section id="tasks">
<h2>Tasks</h2>
<details><summary>Every agent on {_count(len(tasks), "task")}</summary>
{of_tasks}
</details>
</section>
"""


def _about(about: Mapping[str, Any]) -> str:
    command = f"<pre>{escape(str(about['command']))}</pre>" if "command" in about else ""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in _flat({key: value for key, value in about.items() if key != "command"})
    )
    settings = f'<div class="scroll"><table class="about"><tbody>{rows}</tbody></table></div>' if rows else ""
    return f'<section id="about">\n<h2>How it was made</h2>\n{command}\n{settings}\n</section>\n'


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Nested settings as rows of a table, with dotted names."""
    for key, entry in value.items():
        if isinstance(entry, Mapping):
            yield from _flat(entry, f"{prefix}{key}.")
        elif isinstance(entry, list | tuple):
            whole = len(entry) > 3 and all(type(e) is int for e in entry)
            if whole and list(entry) == list(range(entry[0], entry[0] + len(entry))):
                yield f"{prefix}{key}", f"{entry[0]} to {entry[-1]}"
            else:
                yield f"{prefix}{key}", ", ".join(map(_scalar, entry))
        else:
            yield f"{prefix}{key}", _scalar(entry)


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _agent(summary: Mapping[str, Any], name: str) -> str:
    index = list(summary["agents"]).index(name)
    return f'<i class="key" style="color:{plots.colour(index)}">{plots.key(index)}</i>{escape(name)}'


def _interval(entry: Mapping[str, float], form: str = ".3f") -> str:
    return _minus(f"{entry['value']:{form}}") + _ends(entry, form)


def _ends(entry: Mapping[str, float], form: str = ".3f") -> str:
    return _minus(f"<small>{entry['low']:{form}} to {entry['high']:{form}}</small>")


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _at(curve: Mapping[str, Sequence[float]], index: int) -> dict[str, float]:
    return {key: values[index] for key, values in curve.items()}


def _plus_minus(value: float, deviation: float) -> str:
    return _minus(f"{value:.3f} ± {deviation:.3f}")


def _heat(versus: Mapping[str, Any]) -> tuple[str, str]:
    """A probability's cell: orange where it is 0, through white at one half, to blue at 1."""
    entry = versus["probability_of_improvement"]
    value = entry["value"]
    end = np.array([0, 114, 178] if value > 0.5 else [230, 159, 0])
    shade = ",".join(str(int(c)) for c in 255 + (end - 255) * min(1.0, 1.5 * abs(value - 0.5)))
    text = f"{value:.2f}"
    if not entry["low"] <= 0.5 <= entry["high"]:
        text = f"<b>{text}</b>"
    return text, f' style="background:rgb({shade})" title="{entry["low"]:.2f} to {entry["high"]:.2f}"'


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("s" if number != 1 else "")
