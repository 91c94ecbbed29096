"""``rlnas fit`` and ``rlnas models`` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from rlnas.cli import app
from rlnas.errors import RlnasError
from rlnas.model import load_model

from .test_fitting import halves

QUICK = ("--agent", "random", "--designs", "3", "--fidelity", "20x2", "--rungs", "2", "--device", "cpu", "--width", "1")
TRAINING = ("--epochs", "1", "--set", "min_steps=4", "--set", "batch=32", "--set", "threads=1")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = halves()
    file = tmp_path_factory.mktemp("data") / "halves.npz"
    np.savez(file, x=data.x, y=data.y)
    return file


def rlnas(*words: object) -> str:
    """What a command prints on standard output.

    Raises:
        RlnasError: that ``main`` would print as one line.
    """
    result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, RlnasError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def out(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the command."""
    out = tmp_path_factory.mktemp("runs") / "mine"
    told = rlnas("fit", file, *QUICK, *TRAINING, "--out", out)
    assert "test accuracy" in told
    assert "MODEL.md" in told
    return out


def test_one_command_leads_to_a_trained_network(out: Path, file: Path) -> None:
    model = load_model(out / "model")
    assert model.test is not None
    assert model.test.examples == 18
    assert (out / "MODEL.md").read_text().startswith("# halves.npz: ")
    config = json.loads((out / "config.json").read_text())
    assert config["data"]["origin"]["source"] == str(file)


def test_a_finished_run_goes_on_to_where_it_is(out: Path) -> None:
    """The data is read again from where it came from."""
    told = json.loads(rlnas("fit", "--resume", "--out", out, "--json"))
    assert told["finished"]
    assert told["test"]["accuracy"] == load_model(out / "model").test.accuracy  # type: ignore[union-attr]


def test_models_are_listed(out: Path) -> None:
    (row,) = json.loads(rlnas("models", out.parent, "--json"))
    model = load_model(out / "model")
    assert model.test is not None
    assert row["architecture"] == model.architecture.text
    assert row["test_accuracy"] == model.test.accuracy
    assert row["folder"] == str(out)
    text = rlnas("models", out.parent)
    assert f"{model.test.accuracy:.4f}" in text
    assert "halves.npz" in text


def test_names_that_markdown_would_take_for_its_own_stay_names(tmp_path: Path) -> None:
    data = halves()
    rows = data.x[:, :, :, 0].reshape(len(data.x), -1)
    names = np.array(["a|b", "<i>", "*c*"])[data.y]
    lines = [",".join([*map(str, row), name]) for row, name in zip(rows[:, ::7].tolist(), names, strict=True)]
    head = ",".join([*(f"f{i}" for i in range(rows[:, ::7].shape[1])), "label"])
    (tmp_path / "halves.csv").write_text("\n".join([head, *lines]))
    rlnas("fit", tmp_path / "halves.csv", *QUICK, *TRAINING, "--out", tmp_path / "run")
    card = (tmp_path / "run" / "MODEL.md").read_text()
    for name in ("| a\\|b |", "| &lt;i> |", "| \\*c\\* |"):
        assert name in card
    assert load_model(tmp_path / "run" / "model").classes == ("*c*", "<i>", "a|b")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "DATA is missing"),
        (("{file}", "--out", "{out}"), "already holds a run; continue it with --resume"),
        (("{file}", "--agent", "randon"), "unknown agent 'randon'; did you mean 'random'"),
        (("nowhere", "--agent", "randon"), "unknown agent 'randon'"),  # before any data is looked for
        (("{file}", "--fidelity", "much"), "fidelity must be EXAMPLESxSTEPS"),
        (("{file}", "--pareto", "size"), "unknown objective 'size'"),
        (("{file}", "--set", "speed=3"), "unknown setting of the final training 'speed'"),
        (("{file}x",), "no such file or folder"),
        (("--resume",), "--resume needs --out"),
        (("--resume", "--out", "{out}", "--designs", "7"), "was begun with designs = 3, not 7"),
        (("--resume", "--out", "{out}", "--set", "epochs=7"), "was begun with epochs = 1, not 7"),
        (("--resume", "--out", "{out}/model"), "holds no run"),
    ],
)
def test_mistakes_are_told_in_one_line(
    words: tuple[str, ...], message: str, file: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RlnasError, match=message) as told:
        rlnas("fit", *(word.format(file=file, out=out) for word in words))
    assert "\n" not in str(told.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else_is_no_models(tmp_path: Path) -> None:
    assert json.loads(rlnas("models", tmp_path, "--json")) == []
    (tmp_path / "result.json").write_text("[")
    with pytest.raises(RlnasError, match=r"result\.json is damaged"):
        rlnas("models", tmp_path)
    with pytest.raises(RlnasError, match="there is no such folder"):
        rlnas("models", tmp_path / "nowhere")


def test_what_is_stopped_goes_on(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def stop(self: Any) -> bool:
        asked.append(self)
        self.signal = 15
        return len(asked) > 1

    with monkeypatch.context() as patch:
        patch.setattr("rlnas.interruption.Interruption.__call__", stop)
        result = CliRunner().invoke(app, ["fit", str(file), *QUICK, *TRAINING, "--out", str(tmp_path / "run")])
    assert result.exit_code == 128 + 15
    assert f"stopped; go on with: rlnas fit --resume --out {tmp_path / 'run'}" in result.stdout
    assert "test accuracy" in rlnas("fit", "--resume", "--out", tmp_path / "run")
