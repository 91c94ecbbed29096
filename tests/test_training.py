"""A training run's folder: what is written, and that an interrupted run ends as if it had not been."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlnas import store_claim
from rlnas.agents import training
from rlnas.agents.controller import Controller
from rlnas.agents.rl2 import RL2
from rlnas.agents.rl2_config import RL2Config
from rlnas.agents.training import AGENT, CHECKPOINT, EPISODES, SETTINGS, TrainSettings, begin_run, read_run, train
from rlnas.checkpoint import MANIFEST
from rlnas.episode import DesignEpisode
from rlnas.errors import CheckpointError, ConfigurationError, StoreError, UnknownNameError
from rlnas.store import EpisodeStore

from .hidden import SPACE, HiddenEvaluator

UPDATES, TRIALS, DESIGNS = 4, 3, 2
STEPS = UPDATES * TRIALS * DESIGNS * 2
SETTING = TrainSettings(
    env="rlnas/Trial-v0",
    steps=STEPS,
    seed=5,
    trials=TRIALS,
    reward="accuracy",
    learner=RL2Config(hidden_size=8, epochs=2, minibatches=3, learning_rate=0.01),
    env_options={"space": SPACE.spec(), "tasks": "digits:train", "designs_per_trial": DESIGNS},
)
ROLLOUT = DESIGNS * 2
"""How often a rollout asks whether to stop."""


def start(folder: Path, **changes: Any) -> Path:
    begin_run(folder, replace(SETTING, **changes))
    return folder


def stop_at(step: int) -> Callable[[], bool]:
    asked = itertools.count()
    return lambda: next(asked) >= step


def agent_files(folder: Path) -> list[str]:
    """Names of the agent's files, which hold the hashes of their contents."""
    return sorted(path.name for path in (folder / AGENT).iterdir())


def episodes_of(folder: Path) -> list[DesignEpisode]:
    with EpisodeStore(folder / EPISODES, "r") as store:
        return list(store.episodes())


def log_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def assert_same_run(mine: Path, its: Path) -> None:
    assert agent_files(mine) == agent_files(its)
    pairs = list(zip(episodes_of(mine), episodes_of(its), strict=True))
    assert pairs
    assert all(a.same_record(b) for a, b in pairs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = start(tmp_path_factory.mktemp("whole") / "run")
    return folder, train(folder, HiddenEvaluator())


def test_a_run_leaves_its_settings_checkpoint_agent_episodes_and_logs(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, result = whole
    assert sorted(p.name for p in folder.iterdir()) == [AGENT, CHECKPOINT, SETTINGS, EPISODES, "logs"]
    assert {
        k: result[k] for k in ("run", "env", "finished", "timesteps", "updates", "resumed_at_update", "episodes")
    } == {
        "run": str(folder),
        "env": "rlnas/Trial-v0",
        "finished": True,
        "timesteps": STEPS,
        "updates": UPDATES,
        "resumed_at_update": 0,
        "episodes": UPDATES * TRIALS * DESIGNS,
    }
    assert json.loads(json.dumps(result)) == result


def test_every_episode_is_recorded_exactly_once(whole: tuple[Path, dict[str, Any]]) -> None:
    episodes = episodes_of(whole[0])
    assert [(e.agent, e.trial, e.design) for e in episodes] == [
        ("rl2", trial, design) for trial in range(UPDATES * TRIALS) for design in range(DESIGNS)
    ]


def test_the_agent_says_what_it_was_trained_for_and_acts(whole: tuple[Path, dict[str, Any]]) -> None:
    agent = Controller.load(whole[0] / AGENT)
    assert agent.about == json.loads(json.dumps({"env": SETTING.env, "space": SPACE.spec()}))
    observation = np.zeros((2, agent.config.observation_size), dtype=np.float32)
    assert agent.predict(observation)[0].shape == (2,)


def test_the_csv_log_has_a_row_for_each_update(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, result = whole
    rows = log_rows(folder / "logs" / "progress.csv")
    assert [float(row["time/updates"]) for row in rows] == [1, 2, 3, 4]
    assert [float(row["time/total_timesteps"]) for row in rows] == [STEPS / UPDATES * k for k in (1, 2, 3, 4)]
    assert float(rows[-1]["train/accuracy"]) == pytest.approx(result["accuracy"])
    accuracies = np.array([e.evaluation.accuracy for e in episodes_of(folder)]).reshape(UPDATES, -1).mean(1)
    np.testing.assert_allclose([float(row["train/accuracy"]) for row in rows], accuracies, rtol=1e-5)
    assert all(float(row["train/first_ratio_deviation"]) < 1e-5 for row in rows)


def test_on_update_is_given_the_statistics_of_every_update(tmp_path: Path) -> None:
    seen: list[dict[str, float]] = []
    train(start(tmp_path / "run"), HiddenEvaluator(), on_update=seen.append)
    assert [s["updates"] for s in seen] == [1, 2, 3, 4]


def test_settings_are_read_back_as_they_were(tmp_path: Path) -> None:
    read = read_run(start(tmp_path / "run"))
    assert asdict(read) == {**asdict(SETTING), "env_options": json.loads(json.dumps(SETTING.env_options))}


def random_stops(seed: int) -> list[int]:
    """Steps, counted over all rollouts of a call, after which a run is interrupted; the last call is let finish."""
    rng = np.random.default_rng(seed)
    return [int(n) for n in rng.integers(0, 2 * ROLLOUT, size=int(rng.integers(1, 4)))]


@pytest.mark.parametrize("stops", [[0], [ROLLOUT], [UPDATES * ROLLOUT - 1], *map(random_stops, range(5))], ids=str)
def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path, stops: list[int]
) -> None:
    folder, done = start(tmp_path / "run"), 0
    for step in stops:
        result = train(folder, HiddenEvaluator(), stop=stop_at(step))
        assert not result["finished"]
        assert result["resumed_at_update"] == done
        done += step // ROLLOUT
        assert result["updates"] == done
    result = train(folder, HiddenEvaluator())
    assert result["finished"]
    assert (result["resumed_at_update"], result["updates"]) == (done, UPDATES)
    assert_same_run(folder, whole[0])


@pytest.mark.parametrize("seconds", [-1.0, 1e9])
def test_a_run_killed_in_the_middle_of_an_update_goes_on_from_its_last_checkpoint(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Half an update must not be kept; with or without a checkpoint made before."""
    folder, calls, clip = start(tmp_path / "run"), itertools.count(), torch.nn.utils.clip_grad_norm_

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == 2 * 6 + 4:  # 2 epochs of 3 minibatches make an update: the third is under way
            raise KeyboardInterrupt
        return clip(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(training, "CHECKPOINT_SECONDS", seconds)
        patch.setattr(torch.nn.utils, "clip_grad_norm_", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(folder, HiddenEvaluator())
    result = train(folder, HiddenEvaluator())
    assert result["resumed_at_update"] == (2 if seconds < 0 else 0)
    assert_same_run(folder, whole[0])


class Broken(HiddenEvaluator):
    """Fails at its seventh batch."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = itertools.count(1)

    def evaluate(self, proposals: Any) -> Any:
        if next(self.batches) == 7:
            raise OSError("the machine went away")
        return super().evaluate(proposals)


def test_a_run_whose_evaluator_failed_can_be_gone_on_with(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder = start(tmp_path / "run")
    with pytest.raises(OSError, match="went away"):
        train(folder, Broken())
    assert episodes_of(folder)  # what was evaluated before is kept
    train(folder, HiddenEvaluator())
    assert_same_run(folder, whole[0])


def test_a_checkpoint_is_saved_once_all_that_it_knows_of_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, save, found = start(tmp_path / "run"), RL2.save, []

    def looked_at(learner: RL2, path: Path) -> None:
        found.append((learner.updates * TRIALS * DESIGNS, len(episodes_of(folder))))
        save(learner, path)

    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr("rlnas.store_writer.GATHER_SECONDS", 1e6)
    monkeypatch.setattr(RL2, "save", looked_at)
    train(folder, HiddenEvaluator())
    assert len(found) > UPDATES
    assert all(known == recorded for known, recorded in found)


def test_a_run_is_trained_by_one_process_at_a_time(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_claim, "PATIENCE", 0.0)
    folder = start(tmp_path / "run")

    def another(statistics: dict[str, float]) -> None:
        with pytest.raises(StoreError, match="is recording into"):
            train(folder, HiddenEvaluator())

    train(folder, HiddenEvaluator(), on_update=another)
    assert_same_run(folder, whole[0])


def test_a_run_killed_in_its_first_save_begins_anew(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder = start(tmp_path / "run")
    (folder / CHECKPOINT).mkdir()
    (folder / CHECKPOINT / ".0123-tensors.safetensors.part").write_bytes(b"half")
    train(folder, HiddenEvaluator())
    assert_same_run(folder, whole[0])
    assert len(list((folder / CHECKPOINT).iterdir())) == 3


def test_a_resumed_run_logs_beside_what_was_logged(tmp_path: Path) -> None:
    folder = start(tmp_path / "run")
    train(folder, HiddenEvaluator(), stop=stop_at(ROLLOUT))
    train(folder, HiddenEvaluator())
    names = ("progress.csv", "progress-from-update-1.csv")
    updates = [[float(row["time/updates"]) for row in log_rows(folder / "logs" / name)] for name in names]
    assert updates == [[1], [2, 3, 4]]


def test_going_on_with_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    folder = start(tmp_path / "run")
    train(folder, HiddenEvaluator())
    files, evaluator = agent_files(folder), HiddenEvaluator()
    result = train(folder, evaluator)
    assert result["finished"]
    assert result["resumed_at_update"] == result["updates"] == UPDATES
    assert evaluator.asked == []
    assert agent_files(folder) == files


def test_another_seed_is_another_run(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder = start(tmp_path / "run", seed=6)
    train(folder, HiddenEvaluator())
    assert agent_files(folder) != agent_files(whole[0])


def test_a_run_that_is_there_is_not_begun_again(tmp_path: Path) -> None:
    folder = start(tmp_path / "run")
    before = (folder / SETTINGS).read_bytes()
    with pytest.raises(ConfigurationError, match="already holds a run"):
        start(folder, seed=9)
    assert (folder / SETTINGS).read_bytes() == before


@pytest.mark.parametrize("folder", ["nothing", "."])
def test_a_folder_without_a_run_is_named(tmp_path: Path, folder: str) -> None:
    with pytest.raises(ConfigurationError, match="holds no run"):
        read_run(tmp_path / folder)


GOOD = json.loads(json.dumps(asdict(SETTING)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        "\x00\n\n",
        json.dumps({}),
        json.dumps({k: v for k, v in GOOD.items() if k != "env"}),
        json.dumps({k: v for k, v in GOOD.items() if k != "learner"}),
        json.dumps({**GOOD, "learner": None}),
        json.dumps({**GOOD, "learner": {"clip": "wide"}}),
        json.dumps({**GOOD, "learner": {"clip": -1}}),
        json.dumps({**GOOD, "learner": {"grip": 1}}),
        json.dumps({**GOOD, "steps": "many"}),
        json.dumps({**GOOD, "trials": 0}),
        json.dumps({**GOOD, "reward": "glory"}),
        json.dumps({**GOOD, "reward": None}),
        json.dumps({**GOOD, "env": "rlnas/Trail-v0"}),
        json.dumps({**GOOD, "env": ["rlnas/Trial-v0"]}),
        json.dumps({**GOOD, "env_options": "tasks"}),
        json.dumps({**GOOD, "surplus": 1}),
    ],
)
def test_damaged_settings_are_refused_in_one_line(tmp_path: Path, text: str) -> None:
    folder = start(tmp_path / "run")
    (folder / SETTINGS).write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        train(folder, HiddenEvaluator())
    assert str(folder / SETTINGS) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (folder / EPISODES).exists()


def test_settings_that_are_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / SETTINGS).mkdir()
    with pytest.raises(ConfigurationError, match="is damaged"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env_options": {**SETTING.env_options, "tasks": "digits:trian"}}, "did you mean 'train'"),
        ({"env_options": {**SETTING.env_options, "designs_per_trial": 0}}, "designs_per_trial must be"),
        ({"env_options": {**SETTING.env_options, "space": {"kind": "chian"}}}, "did you mean 'chain'"),
    ],
)
def test_settings_that_no_run_could_have_are_refused_before_a_folder_is_made(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        start(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_an_unknown_environment_is_met_with_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'rlnas/Trial-v0'"):
        replace(SETTING, env="rlnas/Trail-v0")


def test_a_damaged_checkpoint_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    folder = start(tmp_path / "run")
    train(folder, HiddenEvaluator(), stop=stop_at(2 * ROLLOUT))
    manifest = json.loads((folder / CHECKPOINT / MANIFEST).read_text())
    path = folder / CHECKPOINT / manifest["tensors.safetensors"]["file"]
    content, before = path.read_bytes(), len(episodes_of(folder))
    path.write_bytes(content[:-4])
    with pytest.raises(CheckpointError, match="SHA-256"):
        train(folder, HiddenEvaluator())
    assert path.read_bytes() == content[:-4]
    assert len(episodes_of(folder)) == before


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    folder = start(tmp_path / "run")
    train(folder, HiddenEvaluator(), stop=stop_at(ROLLOUT))
    (folder / SETTINGS).write_text(json.dumps({**GOOD, "seed": 6}))
    with pytest.raises(CheckpointError, match="was trained with seed = 5, not 6"):
        train(folder, HiddenEvaluator())
