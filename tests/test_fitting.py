"""From a user's data to a trained network: the flow, what it writes, and that it goes on after an interruption."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rlnas import final_training
from rlnas.agents import data_search
from rlnas.agents.data_search import DataSearch
from rlnas.agents.fit_report import CARD, MODEL, RESULT
from rlnas.agents.fit_settings import FitSettings
from rlnas.agents.fitting import SETTINGS, Fit, begin_fit, fit, read_fit
from rlnas.batched_evaluator import BatchedEvaluator
from rlnas.errors import CheckpointError, ConfigurationError, DataError, RlnasError, UnknownNameError
from rlnas.evaluator import Evaluation, Proposal, Status
from rlnas.final_training import FinalTraining
from rlnas.leaderboard import Entry, Leaderboard
from rlnas.limited_evaluator import LimitedEvaluator
from rlnas.model import Model, load_model
from rlnas.pareto import Point, front, latency, points
from rlnas.pretrained import space
from rlnas.rungs import Rung
from rlnas.specs import evaluator_from_spec
from rlnas.store import EpisodeStore
from rlnas.task import FewShotTask
from rlnas.user_data import UserData, data_from_arrays, read_data
from rlnas.user_source import UserSource
from rlnas.wide_network import FULL_FLOPS, WIDEST, Limits, full_cost, widened

from .fake_evaluator import FakeEvaluator

QUICK = FinalTraining(width=2, epochs=1, min_steps=6, batch=32, threads=1)
SETTING = FitSettings(agent="random", designs=5, fidelity="20x3", rungs=2, seed=3, training=QUICK)


def halves(examples: int = 90) -> UserData:
    """Pictures whose class is which half is bright, or none."""
    rng = np.random.default_rng(0)
    y = np.arange(examples) % 3
    x = rng.integers(0, 120, (examples, 8, 8))
    x[y == 1, :4] += 100
    x[y == 2, :, :4] += 100
    return data_from_arrays(x.astype(np.uint8), y, "halves")


@pytest.fixture(scope="module")
def data() -> UserData:
    return halves()


@pytest.fixture(scope="module")
def found(data: UserData, tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """A whole run."""
    return run(tmp_path_factory.mktemp("fit") / "run", data, pareto=("params", "latency"))


def run(folder: Path, data: UserData, **changes: Any) -> Fit:
    begin_fit(folder, data, replace(SETTING, **changes))
    done = fit(folder, data)
    assert done is not None
    return done


def timeless(board: Leaderboard) -> list[Entry]:
    return [replace(entry, seconds=0.0) for entry in board.entries]


def stop_at(call: int) -> Callable[[], bool]:
    asked = itertools.count()
    return lambda: next(asked) >= call


def test_the_folder_holds_everything_and_the_model_is_as_good_as_recorded(found: Fit, data: UserData) -> None:
    names = {path.name for path in found.folder.iterdir()}
    assert names >= {SETTINGS, RESULT, CARD, MODEL, "leaderboard.json", "leaderboard.csv", "model.py", "model.npz"}
    assert names >= {"episodes.sqlite", "architecture.svg", "pareto.json", "pareto-params.svg", "pareto-latency.svg"}
    result = json.loads((found.folder / RESULT).read_text())
    model = load_model(found.folder / MODEL)
    source = UserSource(data, seed=SETTING.seed)
    test = source.division.test
    right = model.predict(data.x[test]) == data.y[test]
    assert result["test"]["accuracy"] == right.mean()
    assert result["test"]["examples"] == len(test) == result["data"]["test"]
    assert result["architecture"] == model.architecture.text
    assert result["found"] == found.found.text
    assert result["parameters"] == sum(p.numel() for p in model.network.parameters())
    low, high = result["test"]["interval"]
    assert low < result["test"]["accuracy"] <= high


def test_the_card_tells_data_protocol_and_scores(found: Fit, data: UserData) -> None:
    card = (found.folder / CARD).read_text()
    assert card.startswith("# halves: `")
    for text in (data.digest, "54 train, 18 validation, 18 test", "5 designs at 20x3", "| seed | 3 |", "random"):
        assert text in card
    assert f"{found.model.test.accuracy:.4f}" in card  # type: ignore[union-attr]
    assert "pareto-params.svg" in card
    assert "architecture.svg" in card


def test_the_better_designs_go_on_with_more(found: Fit) -> None:
    board = found.leaderboard
    assert [(e.rung, e.examples, e.steps) for e in board.entries] == [(0, 20, 3)] * 5 + [(1, 40, 6)] * 2
    first = {e.design: e.accuracy for e in board.entries if e.rung == 0}
    assert min(first[e.design] for e in board.entries if e.rung == 1) >= sorted(first.values())[-2]
    assert found.found.text == board.winner.architecture == board.ranked[0].architecture
    assert board.winner.rung == 1
    again = Leaderboard.from_json(json.loads((found.folder / "leaderboard.json").read_text()))
    assert again.entries == board.entries
    lines = (found.folder / "leaderboard.csv").read_text().splitlines()
    assert lines[1].split(",")[2] == board.winner.architecture


def test_every_design_episode_is_recorded(found: Fit) -> None:
    with EpisodeStore(found.folder / "episodes.sqlite") as store:
        episodes = list(store.episodes("random"))
    first = [entry for entry in found.leaderboard.entries if entry.rung == 0]
    assert [e.architecture for e in episodes] == [e.architecture for e in first]
    assert [e.evaluation.accuracy for e in episodes] == [e.accuracy for e in first]
    assert {e.env["duplicates"] for e in episodes} == {"refuse"}
    assert len({e.actions for e in episodes}) == 5


def test_the_search_never_sees_the_test_part(found: Fit, data: UserData, tmp_path: Path) -> None:
    """Whatever the test part holds, the search and the training come to the same."""
    test = UserSource(data, seed=SETTING.seed).division.test
    x = data.x.copy()
    x[test] = np.random.default_rng(1).integers(0, 255, x[test].shape)
    other = run(tmp_path / "run", replace(data, x=x))
    assert timeless(other.leaderboard) == timeless(found.leaderboard)
    for name, weights in other.model.network.state_dict().items():
        assert np.array_equal(weights.numpy(), found.model.network.state_dict()[name].numpy())
    assert other.model.test != found.model.test


def test_no_evaluation_is_given_an_image_of_the_test_part(
    data: UserData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[FewShotTask] = []

    def watched(self: BatchedEvaluator, proposals: list[Proposal]) -> list[Evaluation]:
        seen.extend(p.task for p in proposals)  # type: ignore[misc]
        return FakeEvaluator().evaluate(proposals)

    monkeypatch.setattr(BatchedEvaluator, "evaluate", watched)
    begin_fit(tmp_path, data, SETTING)
    search = data_search.DataSearch(
        tmp_path, UserSource(data, [20, 40], seed=SETTING.seed), SETTING.plan(data.ways), "cpu"
    )
    assert search.run(lambda: False, lambda count, best: None) is not None
    hidden = {image.tobytes() for image in data.x[search.source.division.test, :, :, 0].astype(np.float32) / 255}
    shown = [image[0].tobytes() for task in seen for part in (task.support_x, task.query_x) for image in part]
    assert len(set(shown)) == 40 + 18
    assert not hidden & set(shown)


@pytest.mark.parametrize(("call", "left"), [(0, 6), (2, 4), (5, 2), (9, 0)])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    call: int, left: int, found: Fit, data: UserData, tmp_path: Path
) -> None:
    begin_fit(tmp_path, data, SETTING)
    assert fit(tmp_path, data, stop=stop_at(call)) is None
    trained: list[int] = []
    original = BatchedEvaluator._train_all
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            BatchedEvaluator,
            "_train_all",
            lambda self, proposals: (trained.append(len(proposals)), original(self, proposals))[1],
        )
        done = fit(tmp_path, data)
    assert done is not None
    assert sum(trained) == left  # nothing is evaluated twice
    assert timeless(done.leaderboard) == timeless(found.leaderboard)
    assert done.model.test == found.model.test


KILLED = """
import os, signal, sys
from pathlib import Path
from rlnas.agents.fitting import fit
from rlnas.user_data import read_data

told = []

def on_evaluation(evaluations, best):
    told.append(best)
    if sys.argv[3] == "search" and len(told) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

fit(Path(sys.argv[1]), read_data(sys.argv[2]), "cpu", on_evaluation=on_evaluation,
    on_epoch=lambda epoch: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_a_run_that_is_killed_goes_on(data: UserData, tmp_path: Path) -> None:
    file, folder = tmp_path / "halves.npz", tmp_path / "run"
    np.savez(file, x=data.x, y=data.y)
    read = read_data(file)
    begin_fit(folder, read, SETTING)
    for stage in ("search", "training"):
        command = [sys.executable, "-c", KILLED, str(folder), str(file), stage]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        assert (folder / "leaderboard.json").exists() == (stage == "training")
    done, whole = fit(folder, read), run(tmp_path / "whole", read)
    assert done is not None
    assert timeless(done.leaderboard) == timeless(whole.leaderboard)
    assert done.model.test == whole.model.test


def test_a_finished_run_is_read_back(found: Fit, data: UserData) -> None:
    before = (found.folder / "leaderboard.json").read_bytes()
    again = fit(found.folder, data)
    assert again is not None
    assert again.model.test == found.model.test
    assert (found.folder / "leaderboard.json").read_bytes() == before


def test_settings_are_kept(found: Fit, data: UserData) -> None:
    settings, about = read_fit(found.folder)
    assert settings == replace(SETTING, pareto=("params", "latency"))
    assert about == {"name": "halves", "digest": data.digest, "origin": None}


def test_what_cannot_be_is_refused_before_anything_is_written(found: Fit, data: UserData, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="already holds a run"):
        begin_fit(found.folder, data, SETTING)
    with pytest.raises(UnknownNameError, match="unknown agent 'randon'; did you mean 'random'"):
        begin_fit(tmp_path / "a", data, replace(SETTING, agent="randon"))
    with pytest.raises(ConfigurationError, match="'portfolio' prepares itself on training tasks"):
        begin_fit(tmp_path / "a", data, replace(SETTING, agent="portfolio"))
    with pytest.raises(CheckpointError, match="holds no trained agent"):
        begin_fit(tmp_path / "a", data, replace(SETTING, agent=str(tmp_path)))
    with pytest.raises(ConfigurationError, match="examples must be one for each of 3 classes"):
        begin_fit(tmp_path / "a", data, replace(SETTING, fidelity="2x3"))
    assert not (tmp_path / "a").exists()
    for changes, message in (
        ({"fidelity": "20"}, "fidelity must be EXAMPLESxSTEPS"),
        ({"pareto": ("size",)}, "unknown objective 'size'"),
        ({"designs": 0}, "designs must be an integer >= 1"),
        ({"max_seconds": 0.0}, "max_seconds must be a positive number"),
        ({"max_params": 0}, "max_params must be an integer >= 1"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            replace(SETTING, **changes)  # type: ignore[arg-type]


def test_a_run_goes_on_with_its_own_data_alone(found: Fit) -> None:
    with pytest.raises(ConfigurationError, match="begun with other data: halves has changed"):
        fit(found.folder, halves(93))
    with pytest.raises(ConfigurationError, match="holds no run"):
        fit(found.folder / MODEL, halves(93))


def test_files_that_change_during_the_search_are_told_of_and_nothing_is_lost(tmp_path: Path, data: UserData) -> None:
    file = tmp_path / "data.npz"
    np.savez(file, x=data.x, y=data.y)
    read = read_data(file)
    begin_fit(tmp_path / "run", read, replace(SETTING, designs=2, rungs=1))

    def change(evaluations: int, best: float) -> None:
        np.savez(file, x=data.x[:80], y=data.y[:80])

    with pytest.raises(DataError, match=r"data\.npz"):
        fit(tmp_path / "run", read, on_evaluation=change)
    assert (tmp_path / "run" / "leaderboard.json").exists()


def test_designs_beyond_the_limits_are_not_trained(data: UserData, tmp_path: Path) -> None:
    done = run(tmp_path, data, max_params=20_000, designs=6, rungs=1)
    over = [entry for entry in done.leaderboard.entries if entry.parameters > 20_000]
    within = [entry for entry in done.leaderboard.entries if entry.parameters <= 20_000]
    assert over
    assert within
    for entry in over:
        assert (entry.status, entry.accuracy) == ("invalid", 0.0)
        assert entry.message == f"would have {entry.parameters:,} parameters, over 20,000, at full width"
    assert {entry.status for entry in within} == {"ok"}
    assert done.result["parameters"] <= 20_000
    assert {e.parameters for e in within if e.architecture == done.found.text} == {done.result["parameters"]}


def test_a_network_is_as_wide_as_its_limits_allow() -> None:
    for text, image in (("conv5x5-8 > conv5x5-8", (1, 28, 28)), ("max-pool > dense-64", (3, 32, 32))):
        found = replace(space((8,)), input_size=image[1]).parse(text)
        for limits in (Limits(), Limits(max_params=9_000), Limits(max_flops=2_000_000), Limits(None, 30_000, 10**7)):
            width = limits.width_of(found, 10, image)
            assert full_cost(found, width, 10, image) == limits.cost_of(found, 10, image)
            within = [
                flops <= (limits.max_flops or FULL_FLOPS) and parameters <= (limits.max_params or 10**9)
                for parameters, flops in (full_cost(found, w, 10, image) for w in range(1, WIDEST + 1))
            ]
            assert width == max([w for w, fits in enumerate(within, 1) if fits], default=1)
        assert Limits(3, max_params=1).width_of(found, 10, image) == 3


def test_a_limit_makes_the_network_narrower_before_it_refuses_designs(data: UserData, tmp_path: Path) -> None:
    free = replace(QUICK, width=None)
    for limit in (5_000, 500_000):
        done = run(tmp_path / str(limit), data, training=free, max_params=limit, designs=4)
        assert done.result["parameters"] <= limit
        assert {e.status for e in done.leaderboard.entries if e.parameters <= limit} == {"ok"}
    assert {e.status for e in done.leaderboard.entries} == {"ok"}
    assert done.model.facts["training"]["config"]["width"] > 1


def test_a_limit_that_nothing_keeps_is_told_of(data: UserData, tmp_path: Path) -> None:
    begin_fit(tmp_path, data, replace(SETTING, max_flops=10))
    with pytest.raises(RlnasError, match=r"none of 5 designs could be trained; the first one: would have .* FLOPs"):
        fit(tmp_path, data)


def test_a_limited_evaluator_is_rebuilt_from_its_description(data: UserData) -> None:
    evaluator = LimitedEvaluator(BatchedEvaluator(), Limits(width=2, max_params=3000))
    rebuilt = evaluator_from_spec(json.loads(json.dumps(evaluator.spec())))
    assert rebuilt.spec() == evaluator.spec()
    task = UserSource(data, [20]).task("20", 0)
    proposals = [Proposal(space().parse(text), task) for text in ("dense-128", "avg-pool > avg-pool", "identity")]
    assert [full_cost(p.architecture, 2, 3, task.image_shape)[0] > 3000 for p in proposals] == [True, False, False]
    for each in (evaluator, rebuilt):
        assert [e.status for e in each.evaluate(proposals)] == [Status.INVALID, Status.OK, Status.OK]


class Clock:
    """Stands still but for evaluations."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


class SlowEvaluator(FakeEvaluator):
    """Takes a second for three steps, and four times as long for six on twice the examples; or did so once."""

    def __init__(self, clock: Clock, remembered: bool) -> None:
        super().__init__()
        self.clock, self.remembered = clock, remembered

    def evaluate(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        found = []
        for proposal, evaluation in zip(proposals, super().evaluate(proposals), strict=True):
            seconds = (proposal.steps / 3) ** 2 if proposal.steps else 1.0
            found.append(replace(evaluation, seconds=seconds))
            self.clock.now += 0 if self.remembered else seconds
        return found


@pytest.mark.parametrize("remembered", [False, True])
@pytest.mark.parametrize(
    ("limit", "designs", "spent", "left"),
    [
        (400, [20, 7, 3], 20 + 7 * 4 + 3 * 16, 400 - 96),
        (100, [20, 7], 20 + 7 * 4, 52),  # three at the top would take until second 96
        (70, [18, 4], 18 + 4 * 4, 36),  # a quarter to propose, half for the search
        (4, [2], 2, 2),
    ],
)
def test_time_is_shared_out(
    limit: float,
    designs: list[int],
    spent: float,
    left: float,
    remembered: bool,
    data: UserData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where what was evaluated before an interruption is remembered."""
    clock = Clock()
    monkeypatch.setattr(data_search, "time", clock)
    monkeypatch.setattr(DataSearch, "evaluator", lambda self, cache=None: SlowEvaluator(clock, remembered))
    done = run(tmp_path, data, designs=20, rungs=3, max_seconds=limit)
    rungs = [entry.rung for entry in done.leaderboard.entries]
    assert [rungs.count(rung) for rung in range(len(designs))] == designs
    assert len(rungs) == sum(designs)
    assert done.leaderboard.seconds == spent
    assert done.model.facts["training"]["config"]["max_seconds"] == left


def test_a_fifth_of_the_time_is_left_for_the_training() -> None:
    assert replace(SETTING, max_seconds=100.0).time_left(Leaderboard([], 95.0)) == 20


def test_finalists_are_trained_wide_before_one_of_them_wins(
    data: UserData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is interrupted, without the test part, and not again once it is done."""
    monkeypatch.setattr(final_training, "SECONDS_BETWEEN_SAVES", 0.0)
    config = replace(QUICK, width=None, epochs=12, min_steps=12)
    begin_fit(tmp_path / "whole", data, replace(SETTING, finalists=3, training=config))
    whole = fit(tmp_path / "whole", data)
    assert whole is not None
    finals = [entry for entry in whole.leaderboard.entries if entry.rung == 2]
    assert [(entry.examples, entry.steps) for entry in finals] == [(54, 4)] * 3  # two epochs of two batches
    assert whole.leaderboard.winner == max(finals, key=lambda entry: (entry.accuracy, -(entry.loss or 0)))
    for entry in finals:
        model = load_model(tmp_path / "whole" / "finalists" / str(entry.design))
        assert (model.test, model.facts["data"]["test"], model.facts["data"]["train"]) == (None, 0, 54)
        assert model.architecture.key == widened(whole.found.space.decode(entry.choices), config_width(model)).key
    assert "3 finalists, at full width, at 54x4" in (tmp_path / "whole" / "MODEL.md").read_text()
    begin_fit(tmp_path / "cut", data, replace(SETTING, finalists=3, training=config))
    cut, calls = None, 0
    while cut is None:
        calls += 1
        cut = fit(tmp_path / "cut", data, stop=stop_at(9))
    assert calls > 3
    assert timeless(cut.leaderboard) == timeless(whole.leaderboard)
    assert cut.result["test"] == whole.result["test"]


def config_width(model: Model) -> int:
    return int(model.facts["training"]["config"]["width"])


def test_a_run_within_the_folder_of_its_data_is_refused(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for n in range(8):
            Image.new("L", (8, 8), 20 * n).save(tmp_path / name / f"{n}.png")
    read = read_data(tmp_path)
    with pytest.raises(ConfigurationError, match=r"lies in the data's folder, .*; choose another --out"):
        begin_fit(tmp_path / "runs" / "mine", read, SETTING)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cat", "dog"]


def test_what_is_finished_is_not_written_again(found: Fit, data: UserData) -> None:
    before = {file: file.stat().st_mtime_ns for file in found.folder.rglob("*") if file.is_file()}
    again = fit(found.folder, data)
    assert again is not None
    assert again.result == json.loads((found.folder / "result.json").read_text()) == found.result
    assert {file: file.stat().st_mtime_ns for file in found.folder.rglob("*") if file.is_file()} == before


def test_what_is_missing_of_a_finished_run_is_written_again(data: UserData, tmp_path: Path) -> None:
    done = run(tmp_path, data)
    (tmp_path / CARD).unlink()
    (tmp_path / "model.py").unlink()
    again = fit(tmp_path, data)
    assert again is not None
    assert (tmp_path / CARD).exists()
    assert (tmp_path / "model.py").exists()
    assert again.result["test"] == done.result["test"]


def test_the_card_tells_what_was_spent(data: UserData, tmp_path: Path) -> None:
    """All 72 examples where the rung asks for more, the network's width, and whose scores they are."""
    free = replace(QUICK, width=None)
    done = run(tmp_path, data, fidelity="500x3", test=0.0, training=free)
    card = done.folder / "MODEL.md"
    assert "5 designs at 72x3, 2 designs at 72x6 (examples x steps)" in card.read_text()
    assert f"| width | {done.result['width']} times that of the search |" in card.read_text()
    assert "scored on the test part" not in card.read_text()
    assert "The validation part was scored before it was trained on, too" in card.read_text()
    assert done.result["width"] == done.model.facts["training"]["config"]["width"] > 1


def test_the_front_is_what_nothing_beats() -> None:
    designs = [Point("a", 0.9, 10), Point("b", 0.9, 12), Point("c", 0.5, 1), Point("d", 0.4, 2), Point("e", 0.95, 90)]
    assert [point.architecture for point in front(designs)] == ["c", "a", "e"]


def test_fronts_compare_all_designs_on_the_first_rung(found: Fit, data: UserData) -> None:
    written = json.loads((found.folder / "pareto.json").read_text())
    designs = written["params"]["designs"]
    assert {d["architecture"] for d in designs} == {e.architecture for e in found.leaderboard.entries}
    first = {e.architecture: (e.accuracy, e.parameters) for e in found.leaderboard.entries if e.rung == 0}
    assert {d["architecture"]: (d["accuracy"], d["cost"]) for d in designs} == first
    assert all(design["cost"] > 0 for design in written["latency"]["designs"])
    plot = (found.folder / "pareto-params.svg").read_text()
    assert plot.startswith("<svg")
    assert "parameters" in plot
    costs = points(found.leaderboard, "flops", found.found.space, Limits(2), 3, data.input_shape)
    assert [point.cost for point in costs] == [e.flops for e in found.leaderboard.on_rung(0)]


def test_latency_grows_with_the_work() -> None:
    small, large = (space((width,)).parse(f"conv5x5-{width} > conv5x5-{width}") for width in (4, 128))
    assert latency(small, 3, (1, 28, 28)) < latency(large, 3, (1, 28, 28))


def test_features_are_searched_by_fully_connected_chains(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(["no", "yes"], 40)
    features = rng.normal(size=(80, 5)) + 2 * (y == "yes")[:, None]
    done = run(tmp_path, data_from_arrays(features, y, "rows"), rungs=3, designs=7, fidelity="30x4")
    assert [(e.rung, e.examples, e.steps) for e in done.leaderboard.entries][-1] == (2, 48, 16)  # all there are
    assert done.model.classes == ("no", "yes")
    layers = {layer for e in done.leaderboard.entries for layer in e.architecture.split(" > ")}
    assert layers <= {"dense-16", "dense-32", "dense-64", "dense-128", "identity"}
    assert done.model.architecture.space.spec()["spatial"] is False


def test_a_rung_is_named_by_examples_and_steps() -> None:
    for text in ("", "20", "20x", "x3", "20x3x4", "-1x3", "20 x 3"):
        with pytest.raises(ConfigurationError, match="fidelity must be EXAMPLESxSTEPS"):
            Rung.parse(text)
    with pytest.raises(ConfigurationError, match="examples of the fidelity must be"):
        Rung.parse("0x3")
