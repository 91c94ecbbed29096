"""Exports: the same predictions, and the recorded accuracy, without rlnas."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlnas.architecture import Architecture
from rlnas.data_division import divide
from rlnas.errors import ConfigurationError, DataError
from rlnas.model import Model, load_model
from rlnas.model_code import model_source
from rlnas.model_export import export_onnx, write_model_py
from rlnas.preprocessing import preprocessing_of
from rlnas.scores import score_predictions
from rlnas.user_data import UserData, data_from_arrays
from tests.trained import CELL, CHAIN, SMALL, colours, digits, trained, wine

KINDS: dict[str, tuple[Architecture, UserData]] = {
    "chain, grey images": (SMALL, digits()),
    "cell, colours": (CELL, colours()),
    "chain, features": (CHAIN.parse("conv3x3-4 > dense-16"), wine()),
}

BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "rlnas":
            raise ImportError("there is no rlnas here")
sys.meta_path.insert(0, Blocker())
import importlib.util, json, pathlib
import numpy as np
for folder in pathlib.Path().iterdir():
    inputs = np.load(folder / "inputs.npy")
    {code}
    np.save(folder / "answers.npy", answers)
assert not any(name.partition(".")[0] == "rlnas" for name in sys.modules)
"""

Made = dict[str, tuple[Model, UserData]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Of every kind a model, read back from its folder, and its data."""
    folder = tmp_path_factory.mktemp("made")
    models = {}
    for number, (kind, (architecture, data)) in enumerate(KINDS.items()):
        trained(folder / str(number), architecture, data)
        models[kind] = load_model(folder / str(number)), data
    return models


def require_same_predictions(made: Made, folder: Path, code: str, tolerance: float) -> None:
    """``code`` makes ``answers`` of ``inputs`` in ``folder``; it is run by an interpreter that can import no rlnas."""
    script = BLOCKED.format(code=code.replace("\n", "\n    "))
    subprocess.run([sys.executable, "-I", "-c", script], cwd=folder, check=True)
    for kind, (model, data) in made.items():
        rows = divide(data).test
        answers = np.load(folder / kind / "answers.npy", allow_pickle=False)
        assert np.abs(answers - model.predict_proba(data.x[rows])).max() < tolerance
        assert model.test is not None
        assert score_predictions(answers, data.y[rows]).accuracy == model.test.accuracy


def test_onnx_runtime_predicts_the_same(made: Made, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    for kind, (model, data) in made.items():
        x = data.x[divide(data).test]
        (tmp_path / kind).mkdir()
        export_onnx(model, tmp_path / kind / "model.onnx")
        np.save(tmp_path / kind / "inputs.npy", model.preprocessing(x) if data.kind == "images" else x)
    code = """
import onnxruntime
session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
(entry,) = session.get_inputs()
assert entry.name == ("features" if inputs.ndim == 2 else "images")
answers = session.run(["probabilities"], {entry.name: inputs})[0]
one = session.run(None, {entry.name: inputs[:1]})[0]
assert np.allclose(one, answers[:1], atol=1e-5)"""
    require_same_predictions(made, tmp_path, code, 1e-4)


def test_the_plain_code_predicts_the_same(made: Made, tmp_path: Path) -> None:
    for kind, (model, data) in made.items():
        write_model_py(model, tmp_path / kind)
        np.save(tmp_path / kind / "inputs.npy", data.x[divide(data).test])
    code = """
spec = importlib.util.spec_from_file_location("model", folder / "model.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
answers = module.predict_proba(module.load(), inputs)
import contextlib, runpy
sys.argv = ["model.py", str(folder / "inputs.npy")]
with (folder / "printed").open("w") as file, contextlib.redirect_stdout(file):
    runpy.run_path(str(folder / "model.py"), run_name="__main__")"""
    require_same_predictions(made, tmp_path, code, 1e-5)
    for kind, (model, data) in made.items():
        named = model.predict(data.x[divide(data).test])
        assert (tmp_path / kind / "printed").read_text().splitlines() == [data.classes[i] for i in named]


@pytest.mark.parametrize("kind", KINDS)
def test_equal_models_give_equal_bytes(kind: str, made: Made, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    model, _ = made[kind]
    model.save(tmp_path / "saved")
    for number, one in enumerate((model, load_model(tmp_path / "saved"))):
        write_model_py(one, tmp_path / str(number))
        export_onnx(one, tmp_path / str(number) / "model.onnx")
    for name in ("model.py", "model.npz", "model.onnx"):
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()


def test_the_plain_code_is_short_and_holds_no_text_of_others(tmp_path: Path) -> None:
    data = digits()
    nasty = "\"\"\"\n\\ {} ''' " + "x" * 200
    hostile = UserData(nasty, (nasty, *data.classes[1:]), data.x, data.y)
    model = trained(tmp_path / "made", SMALL, hostile)
    write_model_py(model, tmp_path)
    source = (tmp_path / "model.py").read_text()
    assert len(source.splitlines()) < 90
    space: dict[str, Any] = {"__name__": "model", "__file__": str(tmp_path / "model.py")}
    exec(compile(source, "model.py", "exec"), space)
    assert space["CLASSES"] == list(hostile.classes)
    assert "self.conv1 = nn.Conv2d(1, 8, 3, padding=1, bias=False)" in source
    assert "x = F.max_pool2d(x, 2)" in source


def test_what_the_plain_code_cannot_take_is_refused(made: Made, tmp_path: Path) -> None:
    model, _ = made["cell, colours"]
    write_model_py(model, tmp_path)
    space: dict[str, Any] = {"__name__": "model", "__file__": str(tmp_path / "model.py")}
    exec(compile((tmp_path / "model.py").read_text(), "model.py", "exec"), space)
    grey = np.random.default_rng(0).integers(0, 256, (4, 9, 10), dtype=np.uint8)
    assert np.allclose(space["predict_proba"](space["load"](), grey), model.predict_proba(grey), atol=1e-5)
    with pytest.raises(ValueError, match="must be 9 x 10"):
        space["prepare"](np.zeros((1, 8, 8, 3)))


@pytest.mark.parametrize(
    ("lightest", "trained_on"), [(255, np.uint8), (1, np.uint8), (1, np.float32), (16, np.float32), (255, np.float64)]
)
def test_the_plain_code_sees_numbers_as_the_model_does(
    lightest: int, trained_on: Any, made: Made, tmp_path: Path
) -> None:
    """Of every kind, also those that it refuses."""
    pixels = np.random.default_rng(0).integers(0, lightest + 1, (12, 8, 8))
    data = data_from_arrays(pixels.astype(trained_on), np.arange(12) % 2)
    model = replace(made["chain, grey images"][0], preprocessing=preprocessing_of(data, np.arange(12)))
    space: dict[str, Any] = {"__name__": "model", "__file__": str(tmp_path / "model.py")}
    exec(compile(model_source(model), "model.py", "exec"), space)
    refusals = 0
    for given in (
        pixels.astype(np.uint8),
        pixels.astype(float),
        pixels / lightest,
        pixels > lightest / 2,
        pixels * 255,
    ):
        for x in (given, given[:0]):
            try:
                expected = model.preprocessing(x) if len(x) else np.empty((0, 1, 8, 8))
            except DataError:
                refusals += 1
                with pytest.raises(ValueError, match="images must be"):
                    space["prepare"](x)
            else:
                if len(x) or x.dtype.kind == trained_on(0).dtype.kind:
                    np.testing.assert_allclose(space["prepare"](x).numpy(), expected, atol=1e-6)
    assert refusals


def test_the_plain_code_predicts_many_as_it_predicts_few(made: Made, tmp_path: Path) -> None:
    model, data = made["chain, grey images"]
    write_model_py(model, tmp_path)
    space: dict[str, Any] = {"__name__": "model", "__file__": str(tmp_path / "model.py")}
    exec(compile((tmp_path / "model.py").read_text(), "model.py", "exec"), space)
    many = np.concatenate([data.x] * 2)[:600]
    network = space["load"]()
    assert np.allclose(space["predict_proba"](network, many), model.predict_proba(many), atol=1e-5)
    assert space["predict_proba"](network, many[:0]).shape == (0, 10)


def test_without_onnx_the_user_is_told_what_to_install(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigurationError, match=r"onnx is needed .* 'rlnas\[export\]'"):
        export_onnx(made["cell, colours"][0], tmp_path / "model.onnx")


def test_classes_are_kept_as_json(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    data = colours()
    named = UserData("n", ("ä", "b,c", '"'), data.x, data.y)
    export_onnx(trained(tmp_path / "made", SMALL, named), tmp_path / "model.onnx")
    properties = {entry.key: entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert json.loads(properties["classes"]) == ["ä", "b,c", '"']
