"""Plots of a comparison's summary as SVG text, to stand inside a page."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from io import StringIO
from math import inf
from typing import TYPE_CHECKING, Any, ParamSpec

from rlnas.summary import AGGREGATES, by_rank

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, which the colour-blind tell apart; without yellow, which is faint on white."""
DASHES = ("solid", (0, (4, 1.5)), (0, (1, 1.2)))
MARKERS = ("o", "s", "^")
"""Agents beyond the colours' number differ in these."""
WIDTH, HEIGHT = 6.0, 3.8
LONGEST_NAME = 26
MOST_POINTS = 100
STYLE: dict[Any, Any] = {
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "axes.labelcolor": "#333333",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9.0,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # an agent's name may have a dollar sign
    "xtick.color": "#555555",
    "ytick.color": "#555555",
}


P = ParamSpec("P")


def _styled(draw: Callable[P, str]) -> Callable[P, str]:
    """Draw in the report's style."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> str:
        from matplotlib import rc_context

        with rc_context(STYLE):
            return draw(*args, **kwargs)

    return styled


@_styled
def against_evaluations(summary: Mapping[str, Any], measure: str, label: str) -> str:
    """Every agent's curve over the number of evaluations.

    Args:
        summary: as made by :func:`rlnas.summary.summarise`.
        measure: the key of a curve of each agent.
        label: of the vertical axis.
    """
    figure = _figure(WIDTH, HEIGHT)
    axes = figure.subplots()
    points = _points(summary["evaluations"])
    _curves(figure, axes, {agent: (points, _at(row[measure], points)) for agent, row in summary["agents"].items()})
    if summary["evaluations"] > 1:
        axes.set_xscale("log")
    shown = summary["budgets"]
    ticks = [n for n, after in zip(shown, [*shown[1:], inf], strict=True) if after >= 1.4 * n]  # labels need room
    axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
    axes.minorticks_off()
    axes.set(xlabel="evaluations", ylabel=label)
    return _svg(figure, f"evaluations {measure}")


@_styled
def against_seconds(summary: Mapping[str, Any], measure: str, label: str) -> str:
    """Every agent's curve over wall time; the arguments are those of :func:`against_evaluations`."""
    from matplotlib.ticker import LogLocator

    figure = _figure(WIDTH, HEIGHT)
    axes = figure.subplots()
    timed = {agent: row["against_seconds"] for agent, row in summary["agents"].items()}
    _curves(figure, axes, {agent: (row["seconds"], row[measure]) for agent, row in timed.items()})
    first = min(row["seconds"][0] for row in timed.values())
    last = max(row["seconds"][-1] for row in timed.values())
    if 0 < 10 * first < last:
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if last < 200 * first else (1,)))  # labels need room
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="seconds since the start of the trial", ylabel=label)
    return _svg(figure, f"seconds {measure}")


@_styled
def training(steps: Sequence[float], curves: Mapping[str, Any], label: str) -> str:
    """What training brought.

    Args:
        steps: of the environment, after which it was measured.
        curves: by what they are of, with intervals or without.
        label: of the vertical axis.
    """
    figure = _figure(WIDTH, HEIGHT)
    axes = figure.subplots()
    _curves(figure, axes, {name: (steps, curve) for name, curve in curves.items()})
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.locator_params(axis="x", nbins=6)
    axes.set(xlabel="environment steps", ylabel=label)
    return _svg(figure, f"training {label}")


@_styled
def profiles(summary: Mapping[str, Any]) -> str:
    """Performance profiles at the end of the search."""
    figure = _figure(WIDTH, HEIGHT)
    axes = figure.subplots()
    thresholds = summary["profile_thresholds"]
    curves = {agent: (thresholds, row["profile"]) for agent, row in summary["agents"].items()}
    _curves(figure, axes, curves, order=lambda value: sum(value))
    axes.set(xlabel="score τ", ylabel="share of runs with score > τ", ylim=(-0.02, 1.02))
    return _svg(figure, "profiles")


@_styled
def aggregates(summary: Mapping[str, Any]) -> str:
    """Interquartile mean, mean, median and optimality gap of the scores at the end, with intervals."""
    agents = dict(by_rank(summary))
    figure = _figure(2.2 * WIDTH, 0.75 + 0.26 * len(agents))
    titles = dict(zip(AGGREGATES, ("interquartile mean", "mean", "median", "optimality gap"), strict=True))
    for axes, (name, title) in zip(figure.subplots(1, len(titles), sharey=True), titles.items(), strict=True):
        _dots(axes, {agent: row["end"][name] for agent, row in agents.items()}, list(summary["agents"]))
        axes.set_title(title, fontsize=9.5)
    return _svg(figure, "aggregates")


@_styled
def improvement(summary: Mapping[str, Any], baseline: str) -> str:
    """Probability that each other agent's run ends with a higher score than one of ``baseline``, with intervals."""
    agents = {
        agent: row["versus"][baseline]["probability_of_improvement"]
        for agent, row in by_rank(summary)
        if agent != baseline
    }
    figure = _figure(WIDTH, 0.75 + 0.26 * len(agents))
    axes = figure.subplots()
    axes.axvline(0.5, color="#888888", linewidth=1.0)
    _dots(axes, agents, list(summary["agents"]))
    axes.set(xlabel=f"P(score > that of {_short(baseline)})", xlim=(-0.02, 1.02))
    return _svg(figure, "improvement")


@_styled
def accuracy_against_cost(
    designs: Sequence[tuple[float, float]],
    front: Sequence[tuple[float, float]],
    winner: tuple[float, float] | None,
    label: str,
) -> str:
    """What designs are worth and what they cost.

    Args:
        designs: (cost, accuracy) of each.
        front: those of the Pareto front, by ascending cost.
        winner: the one that was trained fully.
        label: of the cost.
    """
    figure = _figure(WIDTH, HEIGHT)
    axes = figure.subplots()
    axes.step(*zip(*front, strict=True), where="post", color=COLOURS[0], marker="o", markersize=4.5, label="front")
    others = [design for design in designs if design not in front]
    if others:
        axes.plot(*zip(*others, strict=True), "o", color="#888888", markersize=3.5, label="other designs")
    if winner is not None:
        axes.plot(*winner, "*", color=COLOURS[1], markersize=11, label="trained fully")
    costs = [cost for cost, _ in designs]
    if 0 < 10 * min(costs) < max(costs):
        axes.set_xscale("log")
    axes.set(xlabel=label, ylabel="validation accuracy on the first rung")
    figure.legend(loc="outside right center", frameon=False)
    return _svg(figure, f"cost {label}")


def colour(index: int) -> str:
    """The colour of the agent with this index, in all plots."""
    return COLOURS[index % len(COLOURS)]


def key(index: int) -> str:
    """The marker of the agent with this index, as a character."""
    return "●■▲"[_round(index)]


def _round(index: int) -> int:
    return index // len(COLOURS) % len(DASHES)


def _points(evaluations: int) -> list[int]:
    """Numbers of evaluations that are drawn: all, or so many that a page with long curves stays small."""
    if evaluations <= MOST_POINTS:
        return list(range(1, evaluations + 1))
    return sorted({round(evaluations ** (k / (MOST_POINTS - 1))) for k in range(MOST_POINTS)})


def _at(curve: Any, points: Sequence[int]) -> Any:
    """A curve, with or without intervals, after so many evaluations."""
    if isinstance(curve, Mapping):
        return {key: _at(values, points) for key, values in curve.items()}
    return [curve[n - 1] for n in points]


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _curves(figure: Figure, axes: Axes, curves: Mapping[str, tuple[Sequence[float], Any]], order: Any = None) -> None:
    """One line for each agent, a band where there are intervals, and names beside the plot in the order of the ends."""
    lines = []
    for index, (x, curve) in enumerate(curves.values()):
        value = curve["value"] if isinstance(curve, Mapping) else curve
        look: dict[str, Any] = {"color": colour(index), "linestyle": DASHES[_round(index)]}
        if len(x) == 1:
            look |= {"marker": MARKERS[_round(index)], "markersize": 4.5}
        (line,) = axes.plot(x, value, **look)
        if isinstance(curve, Mapping):
            axes.fill_between(
                x, curve["low"], curve["high"], color=colour(index), alpha=min(0.15, 1.0 / len(curves)), linewidth=0
            )
        lines.append((order(value) if order else value[-1], line))
    ranked = sorted(range(len(lines)), key=lambda index: -lines[index][0])
    # A placeholder first: a legend leaves out names that begin with an underscore.
    legend = figure.legend(
        [lines[index][1] for index in ranked], ["-"] * len(lines), loc="outside right center", frameon=False
    )
    names = list(curves)
    for text, index in zip(legend.get_texts(), ranked, strict=True):
        text.set_text(_short(names[index]))


def _dots(axes: Axes, entries: Mapping[str, Mapping[str, float]], agents: Sequence[str]) -> None:
    """One row for each agent: its value as a dot, its interval as a bar."""
    for row, (agent, entry) in enumerate(entries.items()):
        index = agents.index(agent)
        axes.plot(
            [entry["low"], entry["high"]],
            [row, row],
            color=colour(index),
            alpha=0.4,
            linewidth=6.0,
            solid_capstyle="butt",
        )
        axes.plot([entry["value"]], [row], color=colour(index), marker=MARKERS[_round(index)], markersize=4.5)
    axes.set_yticks(range(len(entries)), [_short(agent) for agent in entries])
    axes.set_ylim(len(entries) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, labelcolor="#222222")
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=5)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _svg(figure: Figure, name: str) -> str:
    """The figure as an ``<svg>`` element: equal figures make equal text, and no two share ids that they refer to."""
    from matplotlib import rc_context

    text = StringIO()
    with rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # only the reader's browser needs to have them
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = text.getvalue()
    svg = re.sub(
        r"<style.*?</style>|<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL
    )
    svg = re.sub(r' id="[a-zA-Z0-9.]+_\d+"', "", svg)  # matplotlib's numbers of artists, to which nothing refers
    svg = re.sub(r' d="([^"]*)"', lambda path: f' d="{_rounded(path[1])}"', svg)
    return svg.strip()


def _rounded(path: str) -> str:
    """A path's coordinates to a tenth of a point, which makes the text a third as long."""
    return " ".join(re.sub(r"(\.\d)\d+", r"\1", path).split())
