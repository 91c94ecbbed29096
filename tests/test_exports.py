"""Exports: recorded searches as a Minari dataset, as rows of evaluations, and as a table to search again."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rlnas.datasets import parse_tasks
from rlnas.episode import DesignEpisode
from rlnas.errors import ConfigurationError, DataError, StoreError
from rlnas.evaluator import Evaluation, Proposal, Status
from rlnas.minari_export import export_minari
from rlnas.parquet_export import export_parquet
from rlnas.rebuilding import rebuilt_trials
from rlnas.registration import PRESETS
from rlnas.specs import evaluator_from_spec
from rlnas.store import EpisodeStore
from rlnas.table import Table
from rlnas.table_export import export_table
from rlnas.tabular_evaluator import TableSource, TabularEvaluator

from .fake_evaluator import FakeEvaluator
from .tables import save_table

SPACE = {"kind": "chain", "max_layers": 2, "input_size": 4, "widths": [4], "dense_widths": [8]}
TABLE_ENV = "rlnas/DigitsTableTrial-v0"


class PlainFake(FakeEvaluator):
    """Calls itself an evaluator that can be made again, and knows what its networks cost."""

    def evaluate(self, proposals: Any) -> list[Evaluation]:
        return [replace(e, loss=0.5, seconds=2.0, parameters=1500, flops=10) for e in super().evaluate(proposals)]

    def spec(self) -> dict[str, Any]:
        return {"kind": "sequential"}


def record(env_id: str = TABLE_ENV, trials: int = 2, seed: int = 0, **options: Any) -> list[DesignEpisode]:
    """Trials of a random agent."""
    if PRESETS[env_id]["evaluator"]["kind"] != "table":
        options = {"evaluator": PlainFake(), "space": SPACE, **options}
    episodes: list[DesignEpisode] = []
    env = gym.make(env_id, recorder=episodes.extend, **options)
    rng = np.random.default_rng(seed)
    for trial in range(trials):
        _, info = env.reset(seed=seed + trial)
        over = False
        while not over:
            _, _, over, _, info = env.step(rng.choice(np.flatnonzero(info["action_mask"])))
    return episodes


@pytest.fixture
def load_minari(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    pytest.importorskip("h5py")
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return minari.load_dataset  # type: ignore[no-any-return]


@pytest.mark.parametrize("env_id", [TABLE_ENV, "rlnas/EditTrial-v0"])
def test_a_minari_dataset_holds_what_the_environment_showed(env_id: str, load_minari: Callable[[str], Any]) -> None:
    episodes = record(env_id, trials=3, reward="normalised", designs_per_trial=4)
    cut = episodes[:-2]
    made = export_minari(cut, "rlnas/some-v0")
    dataset = load_minari("rlnas/some-v0")
    assert (made.episodes, made.truncated, made.steps) == (3, 1, dataset.total_steps)
    assert dataset.total_episodes == 3
    for loaded, (trial, shown) in zip(dataset.iterate_episodes(), rebuilt_trials(cut), strict=True):
        for field in ("observations", "actions", "rewards", "terminations", "truncations"):
            values = getattr(loaded, field)
            assert values.dtype == getattr(shown, field).dtype
            assert np.array_equal(values, getattr(shown, field)), field
        assert loaded.rewards.tolist() == [reward for episode in trial for reward in episode.rewards]
        assert loaded.infos.keys() == shown.infos.keys()
        for key, values in shown.infos.items():
            text = values.dtype.kind == "U"
            assert text or loaded.infos[key].dtype == values.dtype
            assert loaded.infos[key].tolist() == ([s.encode() for s in values] if text else values.tolist()), key
        assert loaded.truncations[-1] == (trial[0].trial == 2)


def test_a_minari_dataset_brings_its_environment(load_minari: Callable[[str], Any]) -> None:
    episodes = record("rlnas/EditTrial-v0", trials=2, start="incumbent", max_edits=3, reward="improvement")
    export_minari([replace(episode, agent="mine") for episode in episodes], "edits-v3")
    dataset = load_minari("edits-v3")
    env = dataset.recover_environment()
    settings = env.unwrapped.settings
    assert (settings.env_id, settings.reward, settings.edits.max_edits) == ("rlnas/EditTrial-v0", "improvement", 3)
    loaded = list(dataset.iterate_episodes())[1]
    (metadata,) = dataset.storage.get_episode_metadata([1])
    assert {metadata[name] for name in ("agent", "task", "task_digest")} == {
        "mine",
        episodes[-1].task,
        episodes[-1].task_digest,
    }
    observation, info = env.reset(seed=metadata["seed"], options=metadata["options"])
    assert np.array_equal(observation, loaded.observations[0])
    assert info["task"] == episodes[-1].task
    assert env.observation_space == dataset.observation_space
    assert env.action_space == dataset.action_space


def test_minari_refuses(tmp_path: Path, load_minari: Callable[[str], Any]) -> None:
    episodes = record()
    for wrong in ("some", "x/some-v0", "../some-v0", ""):
        with pytest.raises(ConfigurationError, match="NAME-vVERSION"):
            export_minari(episodes, wrong)
    with pytest.raises(ConfigurationError, match="no episodes"):
        export_minari([], "some-v0")
    with pytest.raises(ConfigurationError, match="another environment"):
        export_minari([*episodes, *record(trials=1, designs_per_trial=2)], "some-v0")
    with pytest.raises(DataError, match="design 1 of the same trial"):
        export_minari([*episodes[:11], *episodes[12:]], "some-v0")

    def damaged() -> Iterator[DesignEpisode]:
        yield from episodes[:10]
        raise StoreError("damaged")

    with pytest.raises(StoreError, match="damaged"):
        export_minari(damaged(), "some-v0")
    assert not (tmp_path / "minari" / "some-v0").exists()
    export_minari(episodes, "some-v0")
    with pytest.raises(ConfigurationError, match="exists already"):
        export_minari(episodes, "some-v0")


def test_no_jax_is_needed(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    pytest.importorskip("minari")
    with EpisodeStore(tmp_path / "episodes.sqlite") as store:
        store.append(record(trials=1))
    code = (
        "import sys; sys.modules['jax'] = None\n"
        "from rlnas.store import EpisodeStore\nfrom rlnas.minari_export import export_minari\n"
        f"export_minari(EpisodeStore({str(tmp_path / 'episodes.sqlite')!r}, 'r').episodes(), 'some-v0')\n"
        "import minari; print(sum(len(e) for e in minari.load_dataset('some-v0').iterate_episodes()))"
    )
    place = {"MINARI_DATASETS_PATH": str(tmp_path / "minari"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=place, check=False)
    assert (done.stdout.strip(), done.returncode) == ("40", 0), done.stderr


def test_parquet_has_a_row_for_each_evaluation(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    episodes = record("rlnas/Trial-v0", designs_per_trial=3, evaluation_seed=7, reward="improvement")
    illegal = replace(episodes[-1], architecture="", evaluation=Evaluation(0.0, status=Status.INVALID), seed=None)
    episodes[-1] = illegal
    with EpisodeStore(tmp_path / "episodes.sqlite") as store:
        store.append(episodes)
        assert export_parquet(store.episodes(), tmp_path / "rows.parquet") == len(episodes) == 6
    rows = parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    hashes = sqlite3.connect(tmp_path / "episodes.sqlite").execute("SELECT sha256 FROM episodes ORDER BY trial, design")
    for row, episode, (sha,) in zip(rows, episodes, hashes, strict=True):
        assert row["sha256"] == sha
        for name in ("agent", "trial", "design", "seed", "evaluation_seed", "task", "task_digest", "best"):
            assert row[name] == getattr(episode, name)
        for name in ("accuracy", "loss", "seconds", "parameters", "flops", "cached", "message"):
            assert row[name] == getattr(episode.evaluation, name)
        assert (row["status"], row["architecture"]) == (str(episode.evaluation.status), episode.architecture or None)
        assert (row["reward"], row["actions"]) == (episode.rewards[-1], len(episode.actions))
        assert (row["env"], row["reward_form"], row["split"]) == ("rlnas/Trial-v0", "improvement", "train")
        source, split = parse_tasks("digits:train")
        assert row["family"] == source.task(split, int(episode.task.rpartition("/")[2])).family
    assert rows[0]["architecture_key"].endswith(f"/{episodes[0].architecture}")
    assert rows[0]["architecture_key"] != rows[0]["architecture"]
    assert rows[-1]["architecture_key"] is None


def test_parquet_of_what_cannot_be_made_here(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (episode, *_) = record(trials=1)
    elsewhere = {**episode.env, "tasks": {"kind": "npz", "path": "/nonexistent.npz"}, "space": {"kind": "hexagon"}}
    episodes = [episode, replace(episode, env=elsewhere)]
    assert export_parquet(iter(episodes), tmp_path / "rows.parquet") == 2
    first, second = parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    assert None not in (first["family"], first["architecture_key"])
    assert second["family"] is second["architecture_key"] is None
    assert second["architecture"] == episode.architecture
    with pytest.raises(ConfigurationError, match="exists already"):
        export_parquet(iter(episodes), tmp_path / "rows.parquet")

    def damaged() -> Iterator[DesignEpisode]:
        yield episode
        raise StoreError("damaged")

    with pytest.raises(StoreError):
        export_parquet(damaged(), tmp_path / "damaged.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


@pytest.mark.parametrize(("env_id", "split"), [("rlnas/Trial-v0", "train"), (TABLE_ENV, "train")])
def test_an_exported_table_gives_back_the_recorded_accuracies(tmp_path: Path, env_id: str, split: str) -> None:
    episodes = record(env_id, trials=4)
    size = export_table(episodes, tmp_path / "search.npz")
    table = Table.load(tmp_path / "search.npz", scale="fraction")
    source, evaluator = TableSource(table), TabularEvaluator(table)
    assert source.splits == {split: size.columns}
    assert size.columns == len({episode.task for episode in episodes})
    assert size.cells == len({(episode.task, episode.architecture) for episode in episodes})
    places = {source.column(split, index): source.task(split, index) for index in range(size.columns)}
    recorded = evaluator_from_spec(episodes[0].env["evaluator"]) if env_id == TABLE_ENV else None
    for episode in episodes:
        task = places[episode.task]
        codes = [int(code) for code in episode.actions]
        if env_id != TABLE_ENV:  # the table holds each network once
            space = gym.make(env_id, space=SPACE).unwrapped.search_space  # type: ignore[attr-defined]
            codes = list(space.parse(episode.architecture).choices)
        (answer,) = evaluator.evaluate([Proposal(table.space.decode(codes), task, 0)])
        assert answer.accuracy == episode.evaluation.accuracy
        assert (answer.parameters, answer.flops) == (episode.evaluation.parameters, episode.evaluation.flops)
        assert answer.seconds == episode.evaluation.seconds
    if recorded is not None:
        original, index = parse_tasks("table:digits:train")[0], int(episodes[0].task.rpartition("/")[2])
        task = original.task("train", index)
        assert places[task.name].family == task.family
        assert np.array_equal(places[task.name].descriptor, task.descriptor)


def test_replicates_of_a_table(tmp_path: Path) -> None:
    episodes = record("rlnas/Trial-v0", trials=1, designs_per_trial=1, evaluation_seed=0)
    again = [replace(episodes[0], design=k, evaluation_seed=k, evaluation=Evaluation(k / 10)) for k in range(3)]
    lost = replace(again[0], design=9, evaluation=Evaluation(0.0, status=Status.TIMEOUT))
    export_table([*again, lost], tmp_path / "seeds.npz")
    table = Table.load(tmp_path / "seeds.npz", scale="fraction", replicates="seed")
    assert table.main.accuracy[0, 0].tolist() == [0.0, 0.1, 0.2]
    drawn = [replace(episode, evaluation_seed=1000 + episode.design) for episode in again]
    export_table(drawn, tmp_path / "drawn.npz")
    assert Table.load(tmp_path / "drawn.npz", scale="fraction").accuracy[0, 0] == pytest.approx(0.1)
    with np.load(tmp_path / "drawn.npz") as file:
        assert json.loads(str(file["about"]))["seeds"] == [1000, 1001, 1002]


def test_a_table_refuses(tmp_path: Path) -> None:
    episodes = record(trials=2, seed=5)
    out = tmp_path / "search.npz"
    assert len({episode.task for episode in episodes}) == 2
    with pytest.raises(ConfigurationError, match="another space"):
        export_table([*episodes, *record("rlnas/Trial-v0", trials=1)], out)
    with pytest.raises(ConfigurationError, match="two different tasks"):
        export_table([*episodes, replace(episodes[0], task_digest="0" * 64)], out)
    with pytest.raises(DataError, match="not the recorded one"):
        export_table([replace(episode, task_digest="0" * 64) for episode in episodes[:10]], out)
    with pytest.raises(ConfigurationError, match="there are 2, such as table:digits:train/"):
        export_table(episodes, out, ["digits:train/999"])
    with pytest.raises(ConfigurationError, match="no evaluations"):
        export_table([], out)
    assert not out.exists()
    assert export_table(episodes, out, [episodes[0].task]).columns == 1
    with pytest.raises(ConfigurationError, match="exists already"):
        export_table(episodes, save_table(tmp_path / "other.npz"))
