"""A found model's card: Markdown that says what it is, what it was made from, how, and how good it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlnas.graph import count_flops, count_parameters
from rlnas.leaderboard import Leaderboard
from rlnas.model import Model
from rlnas.scores import Scores

MOST_CLASSES = 20
"""Classes up to which each one's scores and the confusion matrix are shown."""
MOST_DESIGNS = 10
"""Designs of the leaderboard that are shown."""


def model_card(model: Model, leaderboard: Leaderboard, about: Mapping[str, Any]) -> str:
    """The card, as Markdown; it shows ``architecture.svg`` and plots that lie beside it.

    Args:
        model: trained fully.
        leaderboard: of the search that found its architecture.
        about: ``data`` (name, digest, classes and sizes of the parts), ``protocol`` (what was asked for, by name),
            ``plots`` (file names) and ``files`` (what lies beside the card, by name).
    """
    data = about["data"]
    graph, shape = model.architecture.graph(len(model.classes)), model.preprocessing.input_shape
    parameters, flops = count_parameters(graph, shape), count_flops(graph, shape)
    lines = [
        f"# {_plain(Path(data['name']).name)}: {_code(model.architecture.text)}",
        "",
        f"A network of {parameters:,} parameters ({flops:,} multiply-accumulates an example) for {len(model.classes)} "
        f"classes, found and trained by rlnas on {about['date']}.",
        "",
        "![The network, layer by layer](architecture.svg)",
        "",
        "## Scores",
        "",
        *_scores(model),
        "## Data",
        "",
        *_table(
            ("", ""),
            [
                ("data", data["name"]),
                ("kind", model.preprocessing.kind),
                ("shape as the network sees it", " x ".join(map(str, shape))),
                ("examples", f"{data['train']:,} train, {data['validation']:,} validation, {data['test']:,} test"),
                ("test part", data["test_part"]),
                ("SHA-256", _code(data["digest"])),
            ],
        ),
        "The search saw the train and validation parts alone."
        + (" The trained network was scored on the test part once." if model.test else ""),
        "",
        "## Protocol",
        "",
        *_table(("", ""), [(name, str(value)) for name, value in about["protocol"].items()]),
        "## Leaderboard",
        "",
        f"The best {min(MOST_DESIGNS, len(leaderboard.ranked))} of {len(leaderboard.ranked)} networks; the others are "
        "in `leaderboard.csv`. Accuracies are those of short trainings on the validation part, of narrow networks "
        "but for finalists; "
        "parameters those of the network at full width.",
        "",
        *_table(
            ("design", "architecture", "examples x steps", "accuracy", "parameters"),
            [
                (
                    str(entry.design),
                    _code(entry.architecture),
                    f"{entry.examples} x {entry.steps}",
                    f"{entry.accuracy:.3f}",
                    f"{entry.parameters:,}",
                )
                for entry in leaderboard.ranked[:MOST_DESIGNS]
            ],
        ),
        *(line for plot in about["plots"] for line in (f"![Accuracy against cost]({plot})", "")),
        "## Use",
        "",
        "```python",
        "import rlnas",
        "",
        'model = rlnas.load_model("model")  # this folder\'s',
        "probabilities = model.predict_proba(x)",
        "```",
        "",
        *(f"- `{name}`: {what}" for name, what in about["files"].items()),
        "",
    ]
    return "\n".join(lines)


def _scores(model: Model) -> list[str]:
    parts = [(name, scores) for name, scores in (("test", model.test), ("validation", model.validation)) if scores]
    lines = _table(
        ("part", "examples", "accuracy", "95% interval", "balanced accuracy", "cross-entropy", "calibration error"),
        [(name, *_row(scores)) for name, scores in parts],
    )
    if model.facts.get("refitted"):
        lines += [
            "The validation part was scored before it was trained on, too: the model's own weights have seen it.",
            "",
        ]
    if model.test is None:
        lines += ["There is no test part: the validation part chose the network and flatters it.", ""]
    _, shown = parts[0] if parts else ("", None)
    if shown is not None and len(model.classes) <= MOST_CLASSES:
        lines += _by_class(model.classes, shown, parts[0][0])
    return lines


def _row(scores: Scores) -> tuple[str, ...]:
    low, high = scores.interval
    return (
        f"{scores.examples:,}",
        f"{scores.accuracy:.4f}",
        f"{low:.4f} to {high:.4f}",
        f"{scores.balanced_accuracy:.4f}",
        f"{scores.loss:.4f}",
        f"{scores.calibration_error:.4f}",
    )


def _by_class(classes: Sequence[str], scores: Scores, part: str) -> list[str]:
    named = [_plain(name) for name in classes]
    shares = zip(named, scores.recalls, scores.precisions, strict=True)
    confusion = zip(named, scores.confusion, strict=True)
    return [
        f"### By class, on the {part} part",
        "",
        *_table(
            ("class", "recall", "precision"),
            [(name, *("–" if share is None else f"{share:.3f}" for share in both)) for name, *both in shares],
        ),
        "Confusion: how many of each class (row) were named as each class (column).",
        "",
        *_table(("", *named), [(name, *map(str, row)) for name, row in confusion]),
        "Reliability: of predictions by their confidence, how many there are, how sure and how right they are.",
        "",
        *_table(
            ("confidence", "predictions", "mean confidence", "accuracy"),
            [
                (f"{b.low:.2f} to {b.high:.2f}", str(b.count), f"{b.confidence:.3f}", f"{b.accuracy:.3f}")
                for b in scores.bins
                if b.count
            ],
        ),
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [head, ["---"] * len(head), *([cell.replace("|", "\\|").replace("\n", " ") for cell in r] for r in rows)]
    return [*("| " + " | ".join(row) + " |" for row in cells), ""]


def _code(text: str) -> str:
    return f"`{text.replace('`', chr(39))}`"


def _plain(text: str) -> str:
    """A user's text without what Markdown or HTML would take for its own; bars are left to tables."""
    return "".join(f"\\{c}" if c in "\\`*_[]#" else {"<": "&lt;", "&": "&amp;"}.get(c, c) for c in text)
