"""The command line as a user meets it: whole runs, interruptions, and one line for every mistake."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rlnas.agents.controller import Controller, ControllerConfig
from rlnas.cli import _steps_done, main
from rlnas.episode import DesignEpisode
from rlnas.initialisation import Initialisation
from rlnas.progress import Progress
from rlnas.registration import PRESETS
from rlnas.replay_terminal import step_through, trial_of
from rlnas.specs import space_from_spec
from rlnas.store import EpisodeStore

SMALL = (
    *("--env", "rlnas/DigitsTrial-v0", "--trials", "2", "--reward", "accuracy", "--device", "cpu"),
    *("--set", "minibatches=2", "--set", "hidden_size=8"),
)
"""A run whose updates take a second; one trial has 10 designs."""
FEW_IMAGES = tuple(
    word for option in ("ways=2", "shots=1-2", "queries=2", "image_size=8") for word in ("--task-option", option)
)
"""How tasks are drawn from the few images of :func:`make_folder`."""
DEADLINE = 120.0
"""Seconds after which a process that should have got somewhere is given up."""


class Terminal(io.StringIO):
    """A stream that a person sits at."""

    def isatty(self) -> bool:
        return True


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    out: str
    err: str


def call(*words: object) -> Outcome:
    """Run the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["rlnas", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
    status = ended.value.code or 0
    assert isinstance(status, int)
    return Outcome(status, out.getvalue(), err.getvalue())


def succeed(*words: object) -> str:
    """What a command prints on standard output; it must succeed."""
    outcome = call(*words)
    assert outcome.status == 0, outcome
    assert "Traceback" not in outcome.err
    return outcome.out


def start(*words: object, checkpoint_seconds: float = 1e9, file_size: int | None = None) -> subprocess.Popen[str]:
    """Run the command line in a process of its own, which saves checkpoints that often."""
    program = (
        f"from rlnas.agents import training; training.CHECKPOINT_SECONDS = {checkpoint_seconds}; "
        "from rlnas.cli import main; main()"
    )

    def limit() -> None:
        if file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))

    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
    )


def finish(process: subprocess.Popen[str]) -> Outcome:
    out, err = process.communicate(timeout=DEADLINE)
    return Outcome(process.returncode, out, err)


def episodes_of(run: Path, agent: str | None = None) -> list[DesignEpisode]:
    with EpisodeStore(run / "episodes.sqlite", mode="r") as store:
        assert store.verify() == []
        return list(store.episodes(agent))


def assert_same_episodes(found: Sequence[DesignEpisode], expected: Sequence[DesignEpisode]) -> None:
    assert len(found) == len(expected) > 0
    assert all(mine.same_record(its) for mine, its in zip(found, expected, strict=True))


def wait_for_episodes(process: subprocess.Popen[str], run: Path, count: int) -> None:
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        if (run / "logs").exists():  # the store was opened before
            with EpisodeStore(run / "episodes.sqlite", mode="r") as store:
                if len(store) >= count:
                    return
        try:
            process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
        pytest.fail(f"the run ended before it had {count} episodes: {process.communicate()}")
    process.kill()
    pytest.fail(f"the run had no {count} episodes in {DEADLINE} s")


def weights(run: Path) -> str:
    """SHA-256 of a run's trained weights."""
    manifest = json.loads((run / "agent" / "manifest.json").read_text())
    return str(manifest["tensors.safetensors"]["sha256"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training run of one update."""
    run = tmp_path_factory.mktemp("trained") / "run"
    succeed("train", *SMALL, "--steps", 1, "--out", run)
    return run


@pytest.fixture(scope="module")
def searched(trained: Path) -> Path:
    """A comparison of the trained agent with every searcher: 2 trials of 3 designs for each."""
    out = trained.parent / "search"
    options = ("--trials", 2, "--designs", 3, "--against", "wiped,random,evolution", "--device", "cpu")
    succeed("search", "--agent", trained, *options, "--out", out)
    return out


@pytest.fixture(scope="module")
def learned_start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A meta-learned start for the space of the trained agent."""
    out = tmp_path_factory.mktemp("start") / "init"
    adaptation = ("--adaptation", "fomaml", "--adaptation-option", "steps=2")
    options = (*adaptation, "--iterations", 2, "--device", "cpu")
    assert "tensors from 2 iterations, accuracy 0." in succeed("meta-train", *options, "--out", out)
    return out


class TestWholeRuns:
    def test_train_leaves_a_run(self, trained: Path) -> None:
        assert {path.name for path in trained.iterdir()} == {
            *("config.json", "checkpoint", "agent", "episodes.sqlite", "logs")
        }
        assert len(episodes_of(trained)) == 20
        config = json.loads((trained / "config.json").read_text())
        assert config["learner"]["hidden_size"] == 8
        assert config["reward"] == "accuracy"

    def test_search_compares_all_at_equal_evaluations(self, searched: Path) -> None:
        summary = json.loads((searched / "summary.json").read_text())
        assert list(summary["agents"]) == ["rl2", "wiped", "random", "evolution"]
        assert {agent: len(episodes_of(searched, agent)) for agent in summary["agents"]} == dict.fromkeys(
            summary["agents"], 6
        )
        assert {e.task for e in episodes_of(searched, "rl2")} == {"digits:test/0", "digits:test/1"}
        drawing = searched / "best_architecture.svg"
        assert ElementTree.parse(drawing).getroot().tag.endswith("svg")
        assert "<svg" in (searched / "report.html").read_text()
        assert len((searched / "evaluations.csv").read_text().splitlines()) == 1 + 4 * 6

    def test_search_prints_a_table_and_where_its_files_are(self, trained: Path, tmp_path: Path) -> None:
        out = tmp_path / "found"
        text = succeed("search", "--agent", trained, "--trials", 1, "--designs", 2, "--against", "", "--out", out)
        assert "at 2" in text
        assert "rl2" in text
        assert f"written to {out}" in text

    def test_bench_repeats_with_each_seed(self, trained: Path, tmp_path: Path) -> None:
        options = ("--agents", f"random, evolution,{trained}", "--trials", 1, "--designs", 2, "--seeds", 2, "--json")
        line = succeed("bench", *options, "--out", tmp_path / "out")
        assert json.loads(line)["seeds"] == [0, 1]
        assert list(json.loads(line)["agents"]) == ["random", "evolution", str(trained)]
        assert len(episodes_of(tmp_path / "out")) == 3 * 2 * 2

    def test_a_controller_trained_on_a_table_takes_part_in_comparisons_over_it(self, tmp_path: Path) -> None:
        env = ("--env", "rlnas/DigitsTableTrial-v0")
        small = ("--steps", 1, "--trials", 2, "--set", "hidden_size=8", "--device", "cpu")
        succeed("train", *env, *small, "--out", tmp_path / "run")
        few = ("--trials", 2, "--designs", 2, "--json")
        line = succeed("search", "--agent", tmp_path / "run", *few, "--against", "wiped", "--out", tmp_path / "search")
        assert list(json.loads(line)["agents"]) == ["rl2", "wiped", "random"]
        assert json.loads(line)["searched"] == "table:digits:test"
        line = succeed("bench", *env, "--agents", tmp_path / "run", *few, "--seeds", 1, "--out", tmp_path / "bench")
        assert json.loads(line)["best_is_known"]

    def test_options_come_from_a_toml_file_and_what_is_typed_goes_before_them(self, tmp_path: Path) -> None:
        text = """
            env = "rlnas/DigitsTableTrial-v0"
            agents = ["evolution", "few=genetic?population_size=4"]
            designs = 3
            seeds = 2
            trials = 2
            json = true
        """
        told = json.loads(succeed("bench", toml(tmp_path, text), "--designs", 2, "--out", tmp_path / "out"))
        assert list(told["agents"]) == ["evolution", "few", "random"]
        assert (told["designs"], told["seeds"]) == (2, [0, 1])
        assert "genetic?population_size=4" in (tmp_path / "out" / "report.html").read_text()

    def test_a_folder_named_like_a_searcher_does_not_hide_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "random").mkdir()
        succeed("bench", "--agents", "random", "--trials", 1, "--designs", 1, "--seeds", 1, "--json")
        assert (tmp_path / "runs" / "bench-001" / "summary.json").exists()

    def test_results_without_a_folder_go_to_new_ones(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for _ in range(2):
            succeed("bench", "--agents", "random", "--trials", 1, "--designs", 1, "--seeds", 1)
        assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["bench-001", "bench-002"]

    def test_one_seed_gives_the_same_episodes_and_another_does_not(self, trained: Path, tmp_path: Path) -> None:
        for name, seed in (("same", 0), ("other", 1)):
            succeed("train", *SMALL, "--steps", 1, "--seed", seed, "--out", tmp_path / name)
        assert_same_episodes(episodes_of(tmp_path / "same"), episodes_of(trained))
        assert weights(tmp_path / "same") == weights(trained)
        assert weights(tmp_path / "other") != weights(trained)
        assert [e.actions for e in episodes_of(tmp_path / "other")] != [e.actions for e in episodes_of(trained)]

    @pytest.mark.parametrize("words", [("envs",), ("replay", "{run}"), ("replay", "{run}", "0"), ("train",)])
    def test_json_is_one_line_and_nothing_else(self, words: Sequence[str], trained: Path, tmp_path: Path) -> None:
        options = (*SMALL, "--steps", 1, "--out", tmp_path / "new") if words == ("train",) else ()
        text = succeed(*(word.format(run=trained) for word in words), *options, "--json")
        assert text.count("\n") == 1
        json.loads(text)

    def test_images_of_a_users_own_folder_can_be_searched(self, trained: Path, tmp_path: Path) -> None:
        make_folder(tmp_path / "images")
        tasks = ("--tasks", f"folder:{tmp_path / 'images'}:test", *FEW_IMAGES)
        succeed("search", "--agent", trained, *tasks, "--trials", 1, "--designs", 1, "--out", tmp_path / "out")
        assert {e.env["tasks"]["image_size"] for e in episodes_of(tmp_path / "out")} == {8}

    def test_a_run_on_a_users_own_images_goes_on_from_any_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_folder(tmp_path / "images")
        monkeypatch.chdir(tmp_path)
        tasks = ("--tasks", "folder:images:train", *FEW_IMAGES)
        succeed("train", *SMALL, *tasks, "--steps", 1, "--out", tmp_path / "run")
        monkeypatch.chdir("/")
        assert "finished" in succeed("train", "--resume", "--out", tmp_path / "run")


class TestMetaTrain:
    def test_a_start_is_learned_and_used_by_every_command(
        self, learned_start: Path, trained: Path, tmp_path: Path
    ) -> None:
        digest = Initialisation.load(learned_start).digest
        few = ("--trials", 1, "--designs", 1, "--init", learned_start)
        succeed("bench", "--agents", "random", "--seeds", 1, *few, "--out", tmp_path / "bench")
        succeed("search", "--agent", trained, *few, "--adaptation-option", "steps=3", "--out", tmp_path / "search")
        for out, steps in (("bench", 2), ("search", 3)):
            for episode in episodes_of(tmp_path / out):
                assert episode.env["evaluator"]["init"] == {"path": str(learned_start), "digest": digest}
                assert episode.env["evaluator"]["adaptation"]["method"] == "fomaml"
                assert episode.env["evaluator"]["adaptation"]["steps"] == steps
        assert succeed("replay", tmp_path / "bench", "--recompute") == "1 designs trained again: all equal\n"

    def test_a_run_from_a_start_goes_on_from_any_folder(
        self, learned_start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(learned_start.parent)
        succeed("train", *SMALL, "--init", learned_start.name, "--steps", 1, "--out", tmp_path / "run")
        monkeypatch.chdir("/")
        assert "finished" in succeed("train", "--resume", "--out", tmp_path / "run")
        assert "finished" in succeed("train", "--resume", "--init", learned_start, "--out", tmp_path / "run")
        (episode, *_) = episodes_of(tmp_path / "run")
        assert episode.env["evaluator"]["init"]["path"] == str(learned_start)
        outcome = call("train", "--resume", "--init", learned_start, "--adaptation", "sgd", "--out", tmp_path / "run")
        assert_refused(outcome)
        assert "was begun with evaluator" in outcome.err

    def test_json_says_what_was_learned(self, tmp_path: Path) -> None:
        space = ("--space", "chain", "--space-option", "max_layers=2", "--space-option", "widths=4")
        options = ("--adaptation", "prototype", "--iterations", 2, "--set", "episodes=3", "--device", "cpu", "--json")
        line = succeed("meta-train", *space, "--tasks", "digits:val", *options, "--out", tmp_path / "init")
        told, init = json.loads(line), Initialisation.load(tmp_path / "init")
        assert told["iterations"] == 2
        assert told["digest"] == init.digest
        assert told["tensors"] == len(init.weights)
        assert init.adaptation.method == "prototype"
        assert init.about["space"]["widths"] == [4]
        assert init.about["tasks"][1] == "val"
        assert init.about["meta_training"]["episodes"] == 3

    def test_without_a_start_the_plain_adaptation_can_be_chosen(self, tmp_path: Path) -> None:
        options = ("--adaptation", "sgd", "--adaptation-option", "steps=1", "--trials", 1, "--designs", 1, "--seeds", 1)
        succeed("bench", "--agents", "random", *options, "--out", tmp_path / "out")
        (episode,) = episodes_of(tmp_path / "out")
        assert episode.env["evaluator"]["adaptation"]["steps"] == 1

    def test_a_stopped_training_keeps_its_start(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def advance(self: Progress, *figures: object) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(Progress, "advance", advance)
        outcome = call("meta-train", "--iterations", 10**6, "--device", "cpu", "--out", tmp_path / "init")
        assert outcome.status == 128 + signal.SIGTERM
        assert "from 1 iterations" in outcome.out
        assert Initialisation.load(tmp_path / "init").about["meta_training"]["iterations_done"] == 1


class TestEnvs:
    def test_the_table_names_every_environment(self) -> None:
        lines = succeed("envs").splitlines()
        assert [line.split()[0] for line in lines] == ["id", *PRESETS]
        assert all(PRESETS[line.split()[0]]["tasks"] in line for line in lines[1:])

    def test_json_tells_the_same(self) -> None:
        rows = {row["id"]: row for row in json.loads(succeed("envs", "--json"))}
        assert list(rows) == list(PRESETS)
        assert rows["rlnas/DigitsTrial-v0"]["designs"] == 10
        assert rows["rlnas/Digits-v0"]["architectures"] > 100


class TestHelp:
    @pytest.mark.parametrize("words", [("--help",), ("envs",), ("train", "--help"), ("replay", "--help")])
    def test_help_and_envs_do_without_torch(self, words: Sequence[str]) -> None:
        command = [sys.executable, "-X", "importtime", "-m", "rlnas.cli", *words]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        imported = {line.split("|")[-1].strip() for line in result.stderr.splitlines()}
        assert "rlnas.registration" in imported
        assert not {"torch", "stable_baselines3", "sklearn", "matplotlib"} & imported

    @pytest.mark.parametrize("command", ["envs", "train", "meta-train", "search", "bench", "replay"])
    def test_every_command_explains_itself(self, command: str) -> None:
        assert command in succeed("--help")
        text = succeed(command, "--help")
        assert "--json" in text

    def test_no_command_shows_the_help(self) -> None:
        outcome = call()
        assert outcome.status == 2
        assert "train" in outcome.out + outcome.err


def uncoloured(text: str) -> str:
    """What a terminal shows, without its colours."""
    return re.sub(r"\x1b\[[\d;]*m", "", text)


class TestReplay:
    def test_lists_every_agents_trials(self, searched: Path) -> None:
        text = succeed("replay", searched)
        for agent in ("rl2", "wiped", "random", "evolution"):
            assert f"{agent}: 2 trials, 6 designs" in text
        assert text.count("digits:test/1") == 4

    def test_lists_no_more_than_asked(self, searched: Path) -> None:
        text = succeed("replay", searched, "--agent", "random", "--limit", 1)
        assert "1 more" in text
        assert "rl2" not in text

    def test_tells_a_trial_step_by_step(self, searched: Path) -> None:
        text = succeed("replay", searched / "episodes.sqlite", 1, "--agent", "random")
        for design, episode in enumerate(e for e in episodes_of(searched, "random") if e.trial == 1):
            assert f"trial 1, design {design}" in text
            assert episode.architecture in text
            assert f"accuracy     {episode.evaluation.accuracy:.4f}" in text

    def test_on_a_terminal_enter_takes_the_next_step(self, searched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pressed: list[int] = []
        screen = Terminal()
        monkeypatch.setattr("builtins.input", lambda: pressed.append(uncoloured(screen.getvalue()).count("\nstep ")))
        monkeypatch.setattr("sys.stdin", Terminal())
        monkeypatch.setattr("sys.stdout", screen)
        with EpisodeStore(searched / "episodes.sqlite", mode="r") as store:
            step_through(trial_of(store, 0, "rl2"), pause=0)
            steps = [len(e.actions) for e in store.episodes("rl2", 0)]
        assert len(pressed) == sum(steps) + 2 * len(steps)  # also after a design's beginning and its result
        assert pressed[: steps[0] + 1] == list(range(steps[0] + 1))

    def test_json_holds_the_whole_episodes(self, searched: Path) -> None:
        data = json.loads(succeed("replay", searched, 0, "--agent", "rl2", "--json"))
        for entry in data:
            assert len(entry.pop("thoughts")) == len(entry["actions"])
        recorded = [e for e in episodes_of(searched, "rl2") if e.trial == 0]
        assert [DesignEpisode.from_json(entry) for entry in data] == recorded

    def test_an_honest_record_comes_out_the_same(self, searched: Path) -> None:
        assert succeed("replay", searched, "--recompute") == "24 designs trained again: all equal\n"
        assert json.loads(succeed("replay", searched, 1, "--recompute", "--json")) == {"same": 12, "difference": None}

    @pytest.mark.parametrize(
        ("alter", "named"),
        [
            (lambda e: replace(e, masks=("0" * len(e.masks[0]), *e.masks[1:])), "step 0: masks"),
            (lambda e: replace(e, rewards=(*e.rewards[:-1], 0.125)), "step {last}: rewards"),
            (lambda e: replace(e, evaluation=replace(e.evaluation, accuracy=0.99)), "evaluation.accuracy"),
        ],
    )
    def test_an_altered_record_is_named_at_its_first_difference(
        self, alter: Callable[[DesignEpisode], DesignEpisode], named: str, searched: Path, tmp_path: Path
    ) -> None:
        episodes = episodes_of(searched, "random")
        episodes[1] = alter(episodes[1])
        with EpisodeStore(tmp_path / "episodes.sqlite") as store:
            store.append(episodes)
            assert store.verify() == []  # its hashes are those of the altered record
        outcome = call("replay", tmp_path, "--recompute")
        assert outcome.status == 1
        assert "agent 'random', trial 0, design 1" in outcome.out
        assert named.format(last=len(episodes[1].actions) - 1) in outcome.out
        told = call("replay", tmp_path, "--recompute", "--json")
        assert told.status == 1
        assert json.loads(told.out)["same"] == 1


STEPS = 3 * 2 * 10 * len(space_from_spec(PRESETS["rlnas/DigitsTrial-v0"]["space"]).decisions)
"""Of the runs that are interrupted: three updates of two trials of ten designs."""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert finish(start("train", *SMALL, "--steps", STEPS, "--out", run)).status == 0
    return run


class TestInterruptions:
    def resume(self, run: Path, uninterrupted: Path) -> dict[str, Any]:
        """Go on with a run and compare it with the one that was left alone."""
        outcome = finish(start("train", "--resume", "--out", run, "--json"))
        assert outcome.status == 0, outcome
        assert weights(run) == weights(uninterrupted)
        assert_same_episodes(episodes_of(run), episodes_of(uninterrupted))
        result: dict[str, Any] = json.loads(outcome.out)
        assert result["finished"]
        return result

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_stopped_run_goes_on_to_the_same_weights(
        self, number: signal.Signals, tmp_path: Path, uninterrupted: Path
    ) -> None:
        run = tmp_path / "run"
        process = start("train", *SMALL, "--steps", STEPS, "--out", run)
        wait_for_episodes(process, run, 25)
        process.send_signal(number)
        outcome = finish(process)
        assert outcome.status == 128 + number
        assert "stopping; the run is being saved" in outcome.err
        assert "Traceback" not in outcome.err
        assert f"go on with: rlnas train --resume --out {run}" in outcome.out
        assert len(episodes_of(run)) < len(episodes_of(uninterrupted))
        assert self.resume(run, uninterrupted)["resumed_at_update"] >= 1

    @pytest.mark.parametrize("saves", [False, True], ids=["before any checkpoint", "after a checkpoint"])
    def test_a_killed_run_loses_no_episode_and_goes_on_to_the_same_weights(
        self, saves: bool, tmp_path: Path, uninterrupted: Path
    ) -> None:
        run = tmp_path / "run"
        process = start("train", *SMALL, "--steps", STEPS, "--out", run, checkpoint_seconds=-1 if saves else 1e9)
        wait_for_episodes(process, run, 25)
        process.kill()
        assert finish(process).status == -signal.SIGKILL
        survived = episodes_of(run)
        assert len(survived) >= 25
        with EpisodeStore(run / "episodes.sqlite") as store:  # for appending too
            assert len(store) == len(survived)
        assert (self.resume(run, uninterrupted)["resumed_at_update"] >= 1) == saves

    def test_a_full_disk_is_one_line_and_the_run_goes_on_once_there_is_room(
        self, tmp_path: Path, uninterrupted: Path
    ) -> None:
        run = tmp_path / "run"
        outcome = finish(start("train", *SMALL, "--steps", STEPS, "--no-cache", "--out", run, file_size=60_000))
        assert_refused(outcome)
        self.resume(run, uninterrupted)

    def test_progress_goes_on_from_the_steps_of_the_last_checkpoint(self, trained: Path, tmp_path: Path) -> None:
        assert (
            _steps_done(trained)
            == json.loads(succeed("train", "--resume", "--out", trained, "--json"))["timesteps"]
            > 0
        )
        assert _steps_done(tmp_path) == 0

    def test_a_finished_run_has_nothing_left_to_do(self, trained: Path) -> None:
        before = weights(trained)
        result = json.loads(succeed("train", "--resume", "--out", trained, "--json"))
        assert result["finished"]
        assert result["episodes"] == 20
        assert weights(trained) == before

    def test_a_trial_is_as_long_as_asked_for_and_refuses_duplicates(self, tmp_path: Path) -> None:
        table = ("--env", "rlnas/DigitsTableTrial-v0", "--trials", 2, "--steps", 20)
        run = ("train", *table, "--designs", 3, "--duplicates", "refuse", "--out", tmp_path / "short")
        assert json.loads(succeed(*run, "--json"))["episodes"] == 6
        for option, value, field in (("--designs", 4, "designs_per_trial"), ("--duplicates", "count", "duplicates")):
            outcome = call("train", "--resume", option, value, "--out", tmp_path / "short")
            assert_refused(outcome)
            assert f"begun with {field} = " in outcome.err
        search = ("search", "--agent", tmp_path / "short", "--tasks", "val", "--designs", 2, "--trials", 16)
        succeed(*search, "--duplicates", "refuse", "--out", tmp_path / "short-search")

    def test_the_command_that_began_a_run_may_be_repeated_to_go_on(self, trained: Path) -> None:
        succeed("train", *SMALL, "--steps", 1, "--out", trained, "--resume")


def assert_refused(outcome: Outcome) -> None:
    assert outcome.status == 2, outcome
    assert outcome.out == ""
    assert outcome.err.startswith("rlnas: "), outcome.err
    assert outcome.err.count("\n") == 1, outcome.err
    assert len(outcome.err) > len("rlnas: \n")


def make_folder(folder: Path) -> None:
    """Twenty images of each of three classes."""
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        (folder / name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 256, (10, 10), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


def save_npz(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return f"npz:{path}:test"


def nan_pixels(tmp: Path, run: Path) -> list[object]:
    images = np.full((4, 30, 8, 8), np.nan, dtype=np.float32)
    return ["bench", "--tasks", save_npz(tmp / "nan.npz", images=images)]


def one_class(tmp: Path, run: Path) -> list[object]:
    return ["bench", "--tasks", save_npz(tmp / "one.npz", images=np.zeros((1, 30, 8, 8), dtype=np.uint8))]


def truncated_npz(tmp: Path, run: Path) -> list[object]:
    tasks = save_npz(tmp / "cut.npz", images=np.zeros((4, 30, 8, 8), dtype=np.uint8))
    content = (tmp / "cut.npz").read_bytes()
    (tmp / "cut.npz").write_bytes(content[: len(content) // 2])
    return ["bench", "--tasks", tasks]


def empty_folder(tmp: Path, run: Path) -> list[object]:
    (tmp / "empty").mkdir()
    return ["train", "--tasks", f"folder:{tmp / 'empty'}:train"]


def corrupt_image(tmp: Path, run: Path) -> list[object]:
    make_folder(tmp / "images")
    (tmp / "images" / "b" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\nno image")
    return ["bench", "--tasks", f"folder:{tmp / 'images'}:test", "--task-option", "ways=2"]


def truncate_tensors(folder: Path) -> None:
    (tensors,) = folder.glob("*.safetensors")
    tensors.write_bytes(tensors.read_bytes()[:100])


def truncated_checkpoint(tmp: Path, run: Path) -> list[object]:
    shutil.copytree(run, tmp / "copy")
    truncate_tensors(tmp / "copy" / "checkpoint")
    return ["train", "--resume", "--out", tmp / "copy"]


def damaged_settings(tmp: Path, run: Path) -> list[object]:
    shutil.copytree(run, tmp / "copy")
    (tmp / "copy" / "config.json").write_text('{"env": ')
    return ["train", "--resume", "--out", tmp / "copy"]


def truncated_agent(tmp: Path, run: Path) -> list[object]:
    shutil.copytree(run, tmp / "copy")
    truncate_tensors(tmp / "copy" / "agent")
    return ["search", "--agent", tmp / "copy"]


def foreign_agent(tmp: Path, run: Path) -> list[object]:
    foreigner = Controller(ControllerConfig(20, (5,), (0, 5)))
    foreigner.about = {"env": "rlnas/DigitsTrial-v0", "space": {"kind": "cell", "width": 4}}
    foreigner.save(tmp / "foreign" / "agent")
    return ["search", "--agent", tmp / "foreign"]


def agent_of_no_environment(tmp: Path, run: Path) -> list[object]:
    Controller(ControllerConfig(20, (5,), (0, 5))).save(tmp / "foreign" / "agent")
    return ["search", "--agent", tmp / "foreign"]


def no_store(tmp: Path, run: Path) -> list[object]:
    (tmp / "notes.txt").write_text("no database\n" * 100)
    return ["replay", tmp / "notes.txt"]


def empty_store(tmp: Path, run: Path) -> list[object]:
    EpisodeStore(tmp / "episodes.sqlite").close()
    return ["replay", tmp]


def results_there(tmp: Path, run: Path) -> list[object]:
    return ["search", "--agent", run, "--out", run, "--trials", 1]


def folder_is_a_file(tmp: Path, run: Path) -> list[object]:
    (tmp / "file").touch()
    return ["bench", "--trials", 1, "--designs", 1, "--out", tmp / "file" / "inside"]


def small_table(tmp: Path, **changes: Any) -> str:
    """``table:PATH`` of a table of 8 designs on 2 tasks."""
    ops = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), -1).reshape(-1, 3)
    arrays = {"ops": ops, "tasks": np.array(["a", "b"]), "val": np.random.default_rng(0).random((8, 2)), **changes}
    return f"table:{save_npz(tmp / 'table.npz', **{n: a for n, a in arrays.items() if a is not None}).split(':')[1]}"


def table_of_nan(tmp: Path, run: Path) -> list[object]:
    return ["bench", "--tasks", f"{small_table(tmp, val=np.full((8, 2), np.nan))}:all"]


def table_without_ops(tmp: Path, run: Path) -> list[object]:
    return ["bench", "--tasks", f"{small_table(tmp, ops=None)}:all"]


def table_of_unequal_lengths(tmp: Path, run: Path) -> list[object]:
    return ["bench", "--tasks", f"{small_table(tmp, val=np.zeros((7, 2)))}:all"]


def toml(tmp: Path, text: str) -> Path:
    path = tmp / "comparison.toml"
    path.write_text(text)
    return path


MISTAKES: dict[str, tuple[Sequence[object] | Callable[[Path, Path], list[object]], str]] = {
    "unknown environment": (["train", "--env", "rlnas/DigitTrial-v0"], "did you mean 'rlnas/DigitsTrial-v0'"),
    "unknown environment of a bench": (["bench", "--env", "CartPole-v1"], "rlnas/Trial-v0"),
    "unknown task source": (["bench", "--tasks", "digit:test"], "did you mean 'digits'"),
    "unknown split": (["bench", "--tasks", "digits:testing"], "did you mean 'test'"),
    "no split": (["train", "--tasks", "digits"], "unknown split 'digits'"),
    "unknown task option": (["bench", "--tasks", "digits:test", "--task-option", "way=5"], "way"),
    "task option without value": (["bench", "--task-option", "ways"], "NAME=VALUE"),
    "task option without tasks": (["train", "--task-option", "ways=5"], "--tasks"),
    "NaN pixels": (nan_pixels, "NaN"),
    "one class": (one_class, "two classes"),
    "truncated npz": (truncated_npz, "cut.npz"),
    "missing npz": (["bench", "--tasks", "npz:/no/such.npz:test"], "/no/such.npz"),
    "empty image folder": (empty_folder, "sub-folders"),
    "corrupt image": (corrupt_image, "3.png"),
    "unknown reward": (["train", "--reward", "improvements"], "did you mean 'improvement'"),
    "unknown setting": (["train", "--set", "learning-rate=1"], "did you mean 'learning_rate'"),
    "setting that is no number": (["train", "--set", "epochs=many"], "whole number"),
    "setting out of range": (["train", "--set", "clip=-1"], "clip"),
    "no minibatches": (["train", "--set", "minibatches=0"], "minibatches"),
    "task option that is none": (["bench", "--task-option", "kind=omniglot"], "unknown task option 'kind'"),
    "missing table": (["bench", "--tasks", "table:t.npz:all"], "t.npz"),
    "unknown table": (["bench", "--tasks", "table:nbgrph:all"], "did you mean 'nbgraph'"),
    "known table without data": (
        ["bench", "--env", "rlnas/NASBench201Trial-v0", "--data", "/no/such/folder"],
        "github.com/D-X-Y/NAS-Bench-201",
    ),
    "table of NaN": (table_of_nan, "NaN"),
    "table without ops": (table_without_ops, "'ops' is missing"),
    "table of unequal lengths": (table_of_unequal_lengths, "val"),
    "unknown split of a table": (lambda tmp, run: ["bench", "--tasks", f"{small_table(tmp)}:tset"], "unknown split"),
    "images for a table's environment": (
        ["bench", "--env", "rlnas/DigitsTableTrial-v0", "--tasks", "digits:test"],
        "answers from a table",
    ),
    "adaptation of a table": (
        ["bench", "--env", "rlnas/DigitsTableTrial-v0", "--adaptation", "maml"],
        "a table's evaluations are recorded",
    ),
    "agent that needs tasks to prepare on": (
        lambda tmp, run: ["bench", "--tasks", f"{small_table(tmp)}:all", "--agents", "portfolio", "--out", tmp / "out"],
        "--training-tasks",
    ),
    "unknown setting of an agent": (["bench", "--agents", "genetic?size=3"], "unknown setting of GeneticAlgorithm"),
    "no seeds": (["bench", "--seeds", 0], "number of seeds must be an integer >= 1"),
    "no trials": (["bench", "--trials", 0], "trials must be an integer >= 1"),
    "no designs": (["bench", "--designs", 0], "designs must be an integer >= 1"),
    "duplicates": (["bench", "--duplicates", "refuze"], "duplicates"),
    "missing TOML file": (["bench", "no.toml"], "no.toml"),
    "damaged TOML file": (lambda tmp, run: ["bench", toml(tmp, "seeds = = 3")], "not TOML"),
    "unknown option in a TOML file": (lambda tmp, run: ["bench", toml(tmp, "sedes = 3")], "did you mean 'seeds'"),
    "unknown device": (["train", "--device", "gpu"], "cuda"),
    "adaptation without a start": (["bench", "--adaptation", "maml"], "`rlnas meta-train` makes one"),
    "unknown adaptation": (["bench", "--adaptation", "mamal"], "did you mean 'maml'"),
    "unknown adaptation option": (["bench", "--adaptation-option", "step=1"], "did you mean 'steps'"),
    "missing start": (["train", "--init", "/no/such"], "/no/such"),
    "start that is an agent": (lambda tmp, run: ["bench", "--init", run / "agent"], "holds no meta-learned start"),
    "adaptation that learns no start": (["meta-train", "--out", "runs/init", "--adaptation", "sgd"], "'sgd'"),
    "unknown space": (["meta-train", "--out", "runs/init", "--space", "chains"], "did you mean 'chain'"),
    "unknown space option": (
        ["meta-train", "--out", "runs/init", "--space", "cell", "--space-option", "widths=4"],
        "did you mean 'width'",
    ),
    "space option without a space": (["meta-train", "--out", "runs/init", "--space-option", "width=4"], "--space"),
    "start that is there already": (lambda tmp, run: ["meta-train", "--out", run / "agent"], "choose another --out"),
    "no time": (["meta-train", "--out", "runs/init", "--minutes", "0"], "minutes must be a positive number"),
    "unknown setting of the outer loop": (["meta-train", "--out", "runs/init", "--set", "rate=1"], "learning_rate"),
    "resume without a folder": (["train", "--resume"], "--out"),
    "resume of no run": (["train", "--resume", "--out", "/no/such/run"], "/no/such/run"),
    "resume with another setting": (lambda tmp, run: ["train", "--resume", "--out", run, "--seed", 1], "seed = 0"),
    "resume with another learner": (
        lambda tmp, run: ["train", "--resume", "--out", run, "--set", "hidden_size=9"],
        "hidden_size = 8",
    ),
    "run there already": (lambda tmp, run: ["train", "--out", run], "--resume"),
    "results there already": (results_there, "--out"),
    "folder within a file": (folder_is_a_file, "Not a directory"),
    "truncated checkpoint": (truncated_checkpoint, "damaged"),
    "damaged settings": (damaged_settings, "config.json"),
    "no agent": (["search", "--agent", "/no/such/run"], "/no/such/run"),
    "truncated agent": (truncated_agent, "damaged"),
    "agent for another space": (foreign_agent, "space"),
    "agent of no environment": (agent_of_no_environment, "environment"),
    "unknown opponent": (lambda tmp, run: ["search", "--agent", run, "--against", "evolutoin"], "evolution"),
    "unknown agent of a bench": (["bench", "--agents", "no/such/run"], "no/such/run"),
    "replay of no folder": (["replay", "/no/such/run"], "/no/such/run"),
    "replay of no store": (no_store, "notes.txt"),
    "replay of nothing": (empty_store, "no episodes"),
    "unknown trial": (lambda tmp, run: ["replay", run, 99], "99"),
    "unknown trial to recompute": (lambda tmp, run: ["replay", run, 99, "--recompute"], "99"),
    "unknown agent": (lambda tmp, run: ["replay", run, "--agent", "rl3"], "did you mean 'rl2'"),
    "unknown agent of a trial": (lambda tmp, run: ["replay", run, 0, "--agent", "rl3"], "did you mean 'rl2'"),
    "unknown agent to recompute": (
        lambda tmp, run: ["replay", run, "--agent", "rl3", "--recompute"],
        "did you mean 'rl2'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(
    mistake: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, told = MISTAKES[mistake]
    monkeypatch.chdir(tmp_path)
    before = weights(trained), len(episodes_of(trained))
    outcome = call(*(words(tmp_path, trained) if callable(words) else words))
    assert_refused(outcome)
    assert told in outcome.err
    assert not (tmp_path / "runs").exists()
    assert (weights(trained), len(episodes_of(trained))) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("command", ["train", "bench"])
def test_cuda_where_there_is_none_is_refused(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(call(command, "--device", "cuda"))
    assert list(tmp_path.iterdir()) == []


def test_a_trial_of_several_agents_needs_a_choice(searched: Path) -> None:
    outcome = call("replay", searched, 0)
    assert_refused(outcome)
    assert "--agent: evolution, random, rl2, wiped" in outcome.err


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--steps", "0"),
        ("train", "--steps", "many"),
        ("train", "--seed", "-1"),
        ("train", "--seed", "9" * 30),
        ("bench", "--seeds", "many"),
        ("search",),
        ("replay",),
        ("replay", "runs", "first"),
        ("dance",),
    ],
)
def test_a_usage_error_names_what_is_wrong(words: Sequence[str], tmp_path: Path) -> None:
    outcome = call(*words)
    assert outcome.status == 2
    assert outcome.out == ""
    assert "Usage: rlnas" in outcome.err
    assert "Traceback" not in outcome.err


def test_output_that_cannot_be_written_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "rlnas.cli", "envs"]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert_refused(Outcome(result.returncode, "", result.stderr))


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-m", "rlnas.cli", "envs"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(DEADLINE) == 1
