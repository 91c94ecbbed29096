"""``rlnas fit`` and ``rlnas models`` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from rlnas.agents.data_search import space_for
from rlnas.agents.registry import absolute_agent
from rlnas.cli import app
from rlnas.errors import ConfigurationError, RlnasError
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


def test_every_option_reaches_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without running it."""
    rng = np.random.default_rng(0)
    rows = [f"{a:.3f},{b:.3f},{'ab'[k % 2]}" for k, (a, b) in enumerate(rng.random((60, 2)))]
    (tmp_path / "t.csv").write_text("\n".join(["x,y,kind", *rows]))
    monkeypatch.setattr("rlnas.fit_command._finish", lambda *arguments: None)
    values = {
        "agent": "evolution",
        "designs": 9,
        "fidelity": "33x4",
        "rungs": 2,
        "finalists": 4,
        "validation": 0.3,
        "test": 0.1,
        "seed": 5,
        "max_seconds": 77.0,
        "max_params": 4000,
        "max_flops": 5000,
        "pareto": ["flops"],
    }
    words = [str(word) for name, value in values.items() for word in (f"--{name.replace('_', '-')}", value)]
    words = ["flops" if word == "['flops']" else word for word in words]
    training = ("--width", 3, "--epochs", 7, "--set", "batch=16")
    rlnas("fit", tmp_path / "t.csv", "--label", "kind", *words, *training, "--out", tmp_path / "run")
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert {name: kept["settings"][name] for name in values} == values
    assert {name: kept["settings"]["training"][name] for name in ("width", "epochs", "batch")} == {
        "width": 3,
        "epochs": 7,
        "batch": 16,
    }
    assert kept["data"]["origin"]["label"] == "kind"


def test_a_run_goes_on_with_the_data_it_was_begun_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its options need not be repeated and cannot be changed; the data may lie elsewhere by now."""
    x = np.random.default_rng(0).integers(0, 255, (40, 24, 24), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(40) % 2)
    out = tmp_path / "run"
    read: list[Any] = []
    monkeypatch.setattr("rlnas.fit_command._finish", lambda out, data, *others: read.append(data))
    rlnas("fit", tmp_path / "a.npz", "--image-size", 16, *QUICK, "--out", out)
    (tmp_path / "a.npz").rename(tmp_path / "b.npz")
    rlnas("fit", tmp_path / "b.npz", "--resume", "--out", out)
    assert [data.input_shape for data in read] == [(1, 16, 16)] * 2
    assert read[0].digest == read[1].digest
    for words, message in (
        (("--image-size", 20), "was begun with image_size = 16, not 20"),
        (("--label", "kind"), "was begun with label = None, not kind"),
        (("--data", tmp_path), "--data and --download are for torchvision's sets"),
    ):
        with pytest.raises(RlnasError, match=message):
            rlnas("fit", tmp_path / "b.npz", "--resume", "--out", out, *words)


def test_an_agents_folder_is_found_from_anywhere(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "agent").mkdir()
    (tmp_path / "mine.py").touch()
    monkeypatch.chdir(tmp_path)
    texts = ("agent", "wiped:agent", "mine.py:Mine", "random", "genetic?mutation=.1", "package.module:Mine")
    expected = [f"{tmp_path}/agent", f"wiped:{tmp_path}/agent", f"{tmp_path}/mine.py:Mine", *texts[3:]]
    assert [absolute_agent(text) for text in texts] == expected
    with pytest.raises(ConfigurationError, match="the folder of the run's agent is not there"):
        space_for(f"{tmp_path}/gone", (8, 8))


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
        (("{file}", "--width", "2", "--set", "width=3"), "width is said to be 2 and, by --set, 3"),
        (("{file}", "--max-seconds", "inf"), "max_seconds must be a positive number"),
        (("{file}", "--device", "gpu"), "device must be auto, cpu or cuda"),
        (("{file}", "--download"), "--data and --download are for torchvision's sets"),
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
