"""``rlnas store``: what it says of a store, what it writes, and one line for every mistake."""

from __future__ import annotations

import json
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlnas.episode import DesignEpisode
from rlnas.store import EpisodeStore
from rlnas.store_writer import StoreWriter

from .test_cli import call, succeed
from .test_exports import TABLE_ENV, record


@pytest.fixture(scope="module")
def episodes() -> list[DesignEpisode]:
    """Two trials of one agent and one of another."""
    first = [replace(episode, agent="evolution") for episode in record(trials=2)]
    return [*first, *(replace(episode, agent="random") for episode in record(trials=1, seed=5))]


@pytest.fixture
def run(tmp_path: Path, episodes: list[DesignEpisode]) -> Path:
    """The folder of a run."""
    (tmp_path / "run").mkdir()
    return save(tmp_path / "run" / "episodes.sqlite", episodes).parent


def save(path: Path, episodes: list[DesignEpisode]) -> Path:
    with EpisodeStore(path) as store:
        store.append(episodes)
    return path


def content(path: Path) -> list[DesignEpisode]:
    with EpisodeStore(path, mode="r") as store:
        return list(store.episodes())


def refuse(*words: object) -> str:
    """The one line that a user's mistake gets."""
    outcome = call("store", *words)
    assert (outcome.status, outcome.out) == (2, ""), outcome
    assert outcome.err.count("\n") == 1, outcome.err
    return outcome.err


def test_ls_says_what_a_store_holds(run: Path, episodes: list[DesignEpisode]) -> None:
    text = succeed("store", "ls", run)
    assert "30 designs, schema 1" in text
    assert TABLE_ENV in text
    facts = json.loads(succeed("store", "ls", run / "episodes.sqlite", "--json"))
    assert facts["bytes"] == (run / "episodes.sqlite").stat().st_size
    first, second = facts["agents"]
    assert (first["agent"], first["trials"], first["designs"], first["tasks"]) == ("evolution", 2, 20, 2)
    assert (second["agent"], second["trials"], second["designs"], second["envs"]) == ("random", 1, 10, [TABLE_ENV])
    assert first["best_accuracy"] == max(episode.evaluation.accuracy for episode in episodes[:20])


def test_show_tells_one_record(run: Path, episodes: list[DesignEpisode]) -> None:
    text = succeed("store", "show", run, 1, "--design", 3)
    (wanted,) = (episode for episode in episodes if (episode.trial, episode.design) == (1, 3))
    assert text.splitlines()[0] == "evolution: trial 1, design 3"
    for said in (wanted.task, wanted.task_digest, wanted.architecture, f"{wanted.evaluation.accuracy:.6g}", "ok"):
        assert said in text
    assert succeed("store", "show", run, 0, "--agent", "random").count("random: trial 0") == 10
    exact = json.loads(succeed("store", "show", run, 1, "--design", 3, "--json"))
    assert DesignEpisode.from_json(exact) == wanted
    whole = json.loads(succeed("store", "show", run, 1, "--json"))
    assert [DesignEpisode.from_json(record) for record in whole] == episodes[10:20]
    assert "evolution or random" in refuse("show", run, 0)
    assert "no trial 7" in refuse("show", run, 7)
    assert "no design 10" in refuse("show", run, 1, "--design", 10)
    assert "did you mean 'random'" in refuse("show", run, 0, "--agent", "randon")


def test_verify_finds_damage(run: Path, tmp_path: Path) -> None:
    assert "30 episodes checked, all sound" in succeed("store", "verify", run)
    with sqlite3.connect(run / "episodes.sqlite") as connection:
        connection.execute("UPDATE episodes SET payload = replace(payload, 'ok', 'no') WHERE trial = 1 AND design < 2")
    outcome = call("store", "verify", run)
    assert outcome.status == 1
    *damages, last = outcome.out.splitlines()
    assert [line.partition("design ")[2][0] for line in damages] == ["0", "1"]
    assert "30 episodes checked, DAMAGED in 2 places" in last
    assert len(json.loads(call("store", "verify", run, "--json").out)["damages"]) == 2
    (tmp_path / "junk").write_bytes(b"junk" * 1000)
    assert call("store", "verify", tmp_path / "junk").status == 1
    assert "there is no episode store" in refuse("verify", tmp_path / "absent")


def test_merge_brings_runs_into_one_store(tmp_path: Path, episodes: list[DesignEpisode]) -> None:
    first, second = save(tmp_path / "1.sqlite", episodes[:15]), save(tmp_path / "2.sqlite", episodes[5:])
    out = tmp_path / "all.sqlite"
    assert "30 episodes added" in succeed("store", "merge", out, first, second)
    assert content(out) == episodes
    assert json.loads(succeed("store", "merge", out, second, "--json"))["added"] == 0
    assert len(content(second)) == 25


def test_merge_keeps_runs_of_the_same_agent_apart_if_asked(tmp_path: Path, episodes: list[DesignEpisode]) -> None:
    first = save(tmp_path / "1.sqlite", episodes[:10])
    other = [replace(episode, agent="evolution") for episode in episodes[20:]]
    second, out = save(tmp_path / "2.sqlite", other), tmp_path / "all.sqlite"
    succeed("store", "merge", out, f"seed0={first}", f"seed1={second}")
    with EpisodeStore(out, mode="r") as store:
        assert store.agents() == ["seed0/evolution", "seed1/evolution"]
        renamed = list(store.episodes("seed1/evolution"))
    assert [replace(episode, agent="evolution") for episode in renamed] == other
    odd = save(tmp_path / "a=b.sqlite", other)
    succeed("store", "merge", tmp_path / "odd.sqlite", odd)
    assert content(tmp_path / "odd.sqlite") == other


@pytest.mark.parametrize("is_new", [True, False])
def test_merge_of_runs_that_differ_merges_nothing(tmp_path: Path, episodes: list[DesignEpisode], is_new: bool) -> None:
    changed = replace(episodes[14], best=0.123)
    first, second = save(tmp_path / "1.sqlite", episodes[:15]), save(tmp_path / "2.sqlite", [changed, episodes[15]])
    out = tmp_path / "all.sqlite"
    if not is_new:
        save(out, episodes[20:])
    error = refuse("merge", out, first, second)
    assert "agent 'evolution', trial 1, design 4" in error
    assert str(second) in error
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "1.sqlite",
        "2.sqlite",
        *([] if is_new else ["all.sqlite"]),
    ]
    assert is_new or content(out) == episodes[20:]


def test_merge_refuses(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "all.sqlite"
    assert "into itself" in refuse("merge", run, run / "episodes.sqlite")
    assert "no episode store" in refuse("merge", out, run, tmp_path / "absent")
    assert "NAME=RUN" in refuse("merge", out, f"={run}")
    with StoreWriter(out):
        assert "is recording into" in refuse("merge", out, run)
    assert content(out) == []


def test_export_writes_what_is_asked_for(
    run: Path, tmp_path: Path, episodes: list[DesignEpisode], monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("minari", "h5py", "pyarrow"):
        pytest.importorskip(package)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    files = ("--parquet", tmp_path / "rows.parquet", "--table", tmp_path / "table.npz", "--minari", "some-v1")
    written = json.loads(succeed("store", "export", run, *files, "--agent", "random", "--json"))
    assert written["parquet"] == {"out": str(tmp_path / "rows.parquet"), "rows": 10}
    assert written["table"]["columns"] == 1
    assert written["minari"]["out"] == str(tmp_path / "minari" / "some-v1")
    assert (written["minari"]["episodes"], written["minari"]["steps"]) == (1, 40)
    text = succeed("store", "export", run, "--table", tmp_path / "one.npz", "--task", episodes[0].task)
    assert "on 1 tasks" in text


def test_export_refuses(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "say what to write" in refuse("export", run)
    assert "must end in .npz" in refuse("export", run, "--table", tmp_path / "table.csv")
    assert "--task needs --table" in refuse("export", run, "--minari", "some-v0", "--task", "digits:train/0")
    assert "did you mean 'random'" in refuse("export", run, "--table", tmp_path / "t.npz", "--agent", "rnadom")
    assert "no episodes yet" in refuse("export", save(tmp_path / "empty", []), "--table", tmp_path / "t.npz")
    monkeypatch.setitem(sys.modules, "minari", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    needed = "rlnas: {} is needed for {}: pip install 'rlnas[export]'\n"
    assert refuse("export", run, "--minari", "some-v0") == needed.format("minari", "--minari")
    assert refuse("export", run, "--parquet", tmp_path / "r.parquet") == needed.format("pyarrow", "--parquet")


def test_export_writes_nothing_if_one_of_the_files_is_there(run: Path, tmp_path: Path) -> None:
    (tmp_path / "t.npz").touch()
    message = refuse("export", run, "--parquet", tmp_path / "p.parquet", "--table", tmp_path / "t.npz")
    assert "t.npz exists already" in message
    assert not (tmp_path / "p.parquet").exists()


def test_a_search_becomes_a_benchmark(run: Path, tmp_path: Path, episodes: list[DesignEpisode]) -> None:
    table = tmp_path / "search.npz"
    succeed("store", "export", run, "--table", table, "--task", episodes[0].task)
    command = ("bench", "--env", TABLE_ENV, "--tasks", f"table:{table}:train", "--task-option", "scale=fraction")
    limits = ("--agents", "random,evolution", "--designs", "8", "--seeds", "2", "--device", "cpu")
    summary = json.loads(succeed(*command, *limits, "--out", tmp_path / "bench", "--record", "--json"))
    assert set(summary["agents"]) == {"random", "evolution"}
    known = {e.architecture: e.evaluation.accuracy for e in episodes if e.task == episodes[0].task}
    found = content(tmp_path / "bench" / "episodes.sqlite")
    assert len(found) == 2 * 2 * 8
    with np.load(table) as file:
        texts = ["-".join(map(str, row)) for row in file["ops"]]
    assert set(texts) == set(known)
    assert {e.architecture: e.evaluation.accuracy for e in found}.items() <= known.items()
