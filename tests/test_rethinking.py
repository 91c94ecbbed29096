"""Rethinking: a frozen agent thinks again what it thought when it acted, and another one is told from it."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import VectorEnv
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DQN
from torch import nn

from rlnas.agents.agent import Agent, Likeliest, State, Thinking, think
from rlnas.agents.benchmark import Benchmark
from rlnas.agents.controller import Controller, ControllerConfig
from rlnas.agents.legal import LegalAgent
from rlnas.agents.rethinking import Rethought, rethink, rethink_as, who_acted
from rlnas.agents.sb3 import as_vec_env
from rlnas.agents.search_run import run_search
from rlnas.agents.searcher_agent import MemoryWiped
from rlnas.digits import DigitsSource
from rlnas.episode import DesignEpisode
from rlnas.errors import CheckpointError, DataError, UnknownNameError
from rlnas.replay_terminal import step_through
from rlnas.replay_text import render_steps
from rlnas.search_space import ChainSpace
from rlnas.specs import EVALUATORS
from rlnas.store import EpisodeStore
from rlnas.thought import Agreement, agreement

from .fake_evaluator import FakeEvaluator
from .test_cli import call, succeed

SPACE = ChainSpace(max_layers=3, input_size=4, widths=(4, 8), dense_widths=(8,))
OPTIONS: dict[str, Any] = {"space": SPACE, "tasks": "digits:test", "evaluator": FakeEvaluator(), "designs_per_trial": 4}
TRIALS, SEEDS = 3, (0, 2)


def make_env(env_id: str = "rlnas/Trial-v0", count: int = TRIALS, **options: Any) -> VectorEnv:
    return gym.make_vec(env_id, num_envs=count, **{**OPTIONS, **options})


def make_controller(env: Any, seed: int = 1) -> Controller:
    """One with preferences of its own, untrained."""
    legal = env.unwrapped.layout["legal"]
    config = ControllerConfig(
        env.unwrapped.layout.size, (int(env.single_action_space.n),), (legal.start, legal.stop), hidden_size=16
    )
    controller = Controller(config, seed)
    nn.init.normal_(controller.policy.weight, std=1.0, generator=torch.Generator().manual_seed(seed))
    controller.about = {"env": "rlnas/Trial-v0", "space": SPACE.spec()}
    return controller


class Remembering:
    """Acts as another agent does and keeps what that one thought."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.thought: list[Thinking] = []

    def predict(
        self, observation: Any, state: State = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, State]:
        self.thought.append(think(self._agent, observation, state, episode_start, deterministic))
        return self.thought[-1][:2]


@pytest.mark.parametrize("env_id", ["rlnas/Trial-v0", "rlnas/EditTrial-v0"])
@pytest.mark.parametrize("kind", ["controller", "likeliest", "wiped"])
def test_a_controller_thinks_the_same_again_to_the_bit(env_id: str, kind: str) -> None:
    episodes: list[DesignEpisode] = []
    env: Any = make_env(env_id, recorder=episodes.extend)
    controller = make_controller(env)
    kinds = {"controller": controller, "likeliest": Likeliest(controller), "wiped": MemoryWiped(controller, env.layout)}
    acting = Remembering(kinds[kind])
    run_search(acting, env, range(TRIALS), seed=0)
    trials = [
        [e for e in sorted(episodes, key=lambda e: e.design) if e.trial == trial and e.design < 4]
        for trial in range(TRIALS)
    ]
    controller.seed(1)
    again = rethink(kinds[kind], trials)
    assert agreement(zip(trials, again, strict=True)).difference is None
    for row, (designs, thoughts) in enumerate(zip(trials, again, strict=True)):
        assert [len(mine) for mine in thoughts] == [len(episode.actions) for episode in designs]
        flat = [thought for mine in thoughts for thought in mine]
        masks = [mask for episode in designs for mask in episode.masks]
        for then, now, mask in zip(acting.thought, flat, masks, strict=False):
            assert then.probabilities is not None
            assert then.value is not None
            assert now.probabilities == tuple(then.probabilities[row].tolist())
            assert now.value == float(then.value[row])
            assert {"01"[p > 0] for p, legal in zip(now.probabilities, mask, strict=True) if legal == "0"} <= {"0"}
            assert sum(now.probabilities) == pytest.approx(1.0, abs=1e-5)


def test_a_trial_that_was_not_recorded_keeps_its_place() -> None:
    episodes: list[DesignEpisode] = []
    env = make_env(recorder=episodes.extend)
    controller = make_controller(env)
    run_search(controller, env, range(TRIALS), seed=0)
    trials = [[e for e in episodes if e.trial == trial] for trial in range(TRIALS)]
    for missing in range(TRIALS):
        controller.seed(1)
        kept = [[] if trial == missing else designs for trial, designs in enumerate(trials)]
        again = rethink(controller, kept)
        assert again[missing] == []
        assert agreement(zip(kept, again, strict=True)) == Agreement(24, 24)
    controller.seed(1)
    kept = [trials[0], trials[1][:1], trials[2][:3]]
    assert agreement(zip(kept, rethink(controller, kept), strict=True)) == Agreement(24, 24)
    assert rethink(controller, [[], []]) == [[], []]


def test_what_does_not_fit_the_record_is_refused() -> None:
    episodes: list[DesignEpisode] = []
    env = make_env(recorder=episodes.extend, count=1)
    controller = make_controller(env)
    run_search(controller, env, [0], seed=0)
    with pytest.raises(DataError, match="design 0"):
        rethink(controller, [[replace(episodes[0], masks=("1" * 7, *episodes[0].masks[1:])), *episodes[1:]]])


@pytest.mark.parametrize("algorithm", [MaskablePPO, A2C, DQN, RecurrentPPO])
def test_models_of_other_libraries_tell_what_they_think(algorithm: Any) -> None:
    env: Any = make_env()
    recurrent = {"policy_kwargs": {"shared_lstm": True, "enable_critic_lstm": False}}
    options = {"policy": "MlpLstmPolicy", **recurrent} if algorithm is RecurrentPPO else {"policy": "MlpPolicy"}
    agents = [LegalAgent(algorithm(env=as_vec_env(env), seed=0, **options), env.layout, seed=3) for _ in range(2)]
    observation, _ = env.reset(seed=0)
    states: list[State] = [None, None]
    for step in range(5):
        start = np.full(TRIALS, step == 0)
        action, states[0] = agents[0].predict(observation, states[0], start)
        thinking = think(agents[1], observation, states[1], start)
        states[1] = thinking.state
        legal = observation[:, env.layout["legal"]] > 0.5
        assert thinking.action.tolist() == action.tolist()
        assert thinking.probabilities is not None
        assert (thinking.probabilities[~legal] == 0).all()
        np.testing.assert_allclose(thinking.probabilities.sum(1), 1.0, rtol=1e-5)
        assert thinking.value is not None
        assert thinking.value.shape == (TRIALS,)
        assert np.isfinite(thinking.value).all()
        observation, *_ = env.step(action)


# ---- whoever acted in a store


@pytest.fixture(autouse=True)
def _fakes_have_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EVALUATORS, "fake", FakeEvaluator)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run, with the agent that it made and what another one recorded in it."""
    run = tmp_path_factory.mktemp("trained") / "run"
    run.mkdir()
    env = make_env()
    make_controller(env).save(run / "agent")
    (run / "config.json").write_text("{}")
    with EpisodeStore(run / "episodes.sqlite") as store:
        env = make_env(recorder=store.append, agent="rl2")
        run_search(make_controller(env, seed=9), env, range(TRIALS), seed=0)
    return run


@pytest.fixture(scope="module")
def compared(trained: Path) -> Path:
    """A comparison of agents that sample, search, prepare themselves and forget."""
    texts = {"mine": str(trained), "wiped": f"wiped:{trained}", "evolution": "evolution", "best": "best-on-average"}
    folder = trained.parent / "bench"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EVALUATORS, "fake", FakeEvaluator)
        Benchmark(
            "rlnas/Trial-v0",
            (DigitsSource(), "test"),
            texts,
            SEEDS,
            designs=4,
            evaluator=FakeEvaluator(),
            trials=TRIALS,
            training=(DigitsSource(), "val"),
            env_options={"space": SPACE},
        ).run(folder)
    return folder


@pytest.fixture
def store(compared: Path) -> Iterator[EpisodeStore]:
    with EpisodeStore(compared / "episodes.sqlite", mode="r") as opened:
        yield opened


def agreed(store: EpisodeStore, agent: str, found: Rethought) -> Agreement:
    return agreement((list(store.episodes(agent, trial)), rows) for trial, rows in found.thoughts.items())


@pytest.mark.parametrize("agent", ["mine", "wiped", "random", "evolution", "best"])
def test_every_agent_of_a_comparison_chooses_the_same_again(agent: str, store: EpisodeStore) -> None:
    trials = store.trials(agent)
    assert trials == [0, 1, 2, 6, 7, 8]
    found = rethink_as(store, agent, trials, agent)
    assert agreed(store, agent, found) == Agreement(72, 72)
    assert rethink_as(store, agent, [7], agent).thoughts == {7: found.thoughts[7]}


def test_another_agent_is_told_from_the_one_that_acted(store: EpisodeStore) -> None:
    different = agreed(store, "mine", rethink_as(store, "mine", [0, 1], "wiped"))
    assert 0 < different.same < different.decisions == 24
    assert str(different.difference).startswith("agent 'mine', trial ")
    assert " was recorded, it chooses " in str(different.difference)
    assert agreed(store, "random", rethink_as(store, "random", [0], "evolution")).difference


def test_a_checkpoint_may_be_a_folder_or_a_file(store: EpisodeStore, trained: Path, tmp_path: Path) -> None:
    Controller.load(trained / "agent").save(tmp_path / "agent.zip")
    for policy in (trained, trained / "agent", tmp_path / "agent.zip"):
        assert agreed(store, "mine", rethink_as(store, "mine", [1], str(policy))).difference is None
    found = rethink_as(store, "wiped", [1], f"wiped:{tmp_path / 'agent.zip'}")
    assert agreed(store, "wiped", found).difference is None


def test_what_serves_another_environment_or_is_unknown_is_refused(store: EpisodeStore, tmp_path: Path) -> None:
    make_controller(make_env("rlnas/EditTrial-v0")).save(tmp_path / "other")
    with pytest.raises(CheckpointError, match="observations of"):
        rethink_as(store, "mine", [0], str(tmp_path / "other"))
    with pytest.raises(UnknownNameError, match="did you mean 'evolution'"):
        rethink_as(store, "mine", [0], "evolutoin")


def test_a_frozen_controller_that_acted_is_found(store: EpisodeStore, trained: Path) -> None:
    found = who_acted(store, "mine", [1])
    assert found is not None
    assert found.label == f"{trained}, which acted here"
    assert found.thoughts == rethink_as(store, "mine", [1], str(trained)).thoughts
    assert who_acted(store, "wiped", [1]) is not None
    assert who_acted(store, "evolution", [1]) is None


def test_without_the_agent_there_are_no_thoughts_and_no_error(compared: Path, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(compared, tmp_path / "bench")
    file = tmp_path / "bench" / "runs" / "mine" / "agent.json"
    for identity in ("{", '{"agent": 3}', json.dumps({"agent": str(trained), "sha256": "of another agent"})):
        file.write_text(identity)
        with EpisodeStore(tmp_path / "bench" / "episodes.sqlite", mode="r") as opened:
            assert who_acted(opened, "mine", [1]) is None
    (tmp_path / "alone").mkdir()
    shutil.copy(compared / "episodes.sqlite", tmp_path / "alone")
    with EpisodeStore(tmp_path / "alone" / "episodes.sqlite", mode="r") as opened:
        assert who_acted(opened, "mine", [1]) is None
        found = rethink_as(opened, "mine", [1], str(trained))  # and its likeliest choices, as nothing tells the seed
    assert [thought.choice for thought in found.thoughts[1][0]] == [
        int(np.argmax(thought.probabilities)) for thought in found.thoughts[1][0]
    ]


def test_an_agent_is_found_from_wherever_replay_is_typed(
    compared: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained, tmp_path / "runs" / "mine")
    shutil.copytree(compared, tmp_path / "runs" / "bench")
    for name, text in (("mine", "runs/mine"), ("wiped", "wiped:runs/mine")):  # as they were typed in tmp_path
        file = tmp_path / "runs" / "bench" / "runs" / name / "agent.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "agent": text}))
    (tmp_path / "elsewhere" / "runs" / "mine").mkdir(parents=True)  # of the same name, and another
    monkeypatch.chdir(tmp_path / "elsewhere")
    with EpisodeStore(Path("../runs/bench/episodes.sqlite"), mode="r") as opened:
        for name, text in (("mine", "runs/mine"), ("wiped", "wiped:runs/mine")):
            found = who_acted(opened, name, [1])
            assert found is not None
            assert found.label == f"{text}, which acted here"
            assert agreed(opened, name, found) == Agreement(12, 12)
            assert rethink_as(opened, name, [1], name).thoughts == found.thoughts


def test_in_training_the_agent_was_another(trained: Path) -> None:
    with EpisodeStore(trained / "episodes.sqlite", mode="r") as opened:
        found = who_acted(opened, "rl2", [0])
    assert found is not None
    assert found.label == f"{trained} at the end of its training, not as it acted here"
    assert not found.acted
    assert {thought.choice for row in found.thoughts[0] for thought in row} == {None}
    assert all(thought.probabilities and thought.value is not None for row in found.thoughts[0] for thought in row)


# ---- the command


def lines_with(text: str, words: str) -> Sequence[str]:
    return [line for line in text.splitlines() if words in line]


def test_replay_shows_who_acted(compared: Path, trained: Path) -> None:
    told = succeed("replay", compared, 1, "--agent", "mine")
    assert told.startswith(f"policy and value: {trained}, which acted here\n")
    assert len(lines_with(told, "<- taken")) == len(lines_with(told, "  value ")) == 12
    assert not lines_with(told, "would take")
    told = json.loads(succeed("replay", compared, 1, "--agent", "mine", "--json"))
    for episode in told:
        assert [thought["choice"] for thought in episode["thoughts"]] == episode["actions"]
        assert [len(thought["probabilities"]) for thought in episode["thoughts"]] == [len(episode["masks"][0])] * 3
    told = json.loads(succeed("replay", compared, 1, "--agent", "evolution", "--json"))
    assert not any("thoughts" in episode for episode in told)
    silent = succeed("replay", compared, 1, "--agent", "evolution")
    assert silent.startswith("evolution: trial 1, design 0\n")


def test_replay_compares_choices(compared: Path, trained: Path, tmp_path: Path) -> None:
    told = succeed("replay", compared, "--agent", "mine", "--policy", trained)
    assert told == f"{trained}: 72 decisions thought over again: all equal\n"
    outcome = call("replay", compared, 1, "--agent", "mine", "--policy", "wiped")
    assert outcome.status == 1
    assert "would take" in outcome.out
    assert outcome.out.splitlines()[-1].startswith("DIFFERS: agent 'mine', trial 1, design")
    outcome = call("replay", compared, 1, "--agent", "mine", "--policy", "wiped", "--json")
    assert outcome.status == 1
    assert json.loads(outcome.out)["decisions"] == 12
    page = tmp_path / "trial.html"
    outcome = call("replay", compared, 1, "--agent", "mine", "--policy", "wiped", "--html", page)
    assert outcome.status == 1
    assert "\nDIFFERS: agent 'mine', trial 1, design" in outcome.out
    outcome = call("replay", compared, 1, "--agent", "mine", "--policy", "mine", "--html", page, "--json")
    assert outcome.status == 0
    assert json.loads(outcome.out) == {
        "html": str(page),
        "bytes": page.stat().st_size,
        "decisions": 12,
        "same": 12,
        "difference": None,
    }
    outcome = call("replay", compared, "--policy", trained)
    assert outcome.status == 2
    assert "choose with --agent: best, evolution, mine, random, wiped" in outcome.err


def test_on_a_terminal_steps_wait_and_have_colour(compared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter(["", ""])

    def enter() -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", enter)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with EpisodeStore(compared / "episodes.sqlite", mode="r") as opened:
        episodes, found = list(opened.episodes("mine", 1)), who_acted(opened, "mine", [1])
    assert found is not None
    told = io.StringIO()
    monkeypatch.setattr(told, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", told)
    monkeypatch.setattr(sys, "stdin", told)
    step_through(episodes, 0, found.thoughts[1])
    plain = re.sub(r"\x1b\[[0-9;]*m", "", told.getvalue())
    assert plain != told.getvalue()
    assert plain == "\n".join([*islice(render_steps(episodes[0], 0.0, found.thoughts[1][0]), 3), ""])


def page_data(path: Path) -> dict[str, Any]:
    """What the script of a page reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_a_trial_becomes_a_page(compared: Path, tmp_path: Path) -> None:
    page = tmp_path / "trial.html"
    told = succeed("replay", compared, 1, "--agent", "mine", "--html", page)
    assert told == f"{page}: {page.stat().st_size:,} bytes\n"
    (trial,) = page_data(page)["trials"]
    assert trial["label"] == "mine"
    assert all("p" in step and "value" in step for design in trial["designs"] for step in design["steps"])
    assert succeed("replay", compared, 1, "--agent", "random", "--html", page, "--json").count("bytes") == 1
    assert not any("p" in step for design in page_data(page)["trials"][0]["designs"] for step in design["steps"])


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        (("--against", "wiped"), ["mine", "wiped"]),
        (("--against", "2"), ["mine, trial 1", "mine, trial 2"]),
        (("--against-run", "{trained}"), ["mine", "rl2 (policy and value: {trained} at the end of its training"]),
        (("--against-run", "{copy}"), ["mine in {compared}", "mine in {copy}"]),
        (("--against-run", "{copy}", "--against", "random"), ["mine", "random"]),
        (("--policy", "wiped"), ["mine (policy and value: wiped:{trained})"]),
    ],
)
def test_a_page_compares_trials(
    options: Sequence[str], labels: Sequence[str], compared: Path, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(compared, tmp_path / "copy")
    names = {"trained": trained, "compared": compared, "copy": tmp_path / "copy"}
    page, words = tmp_path / "trial.html", [option.format(**names) for option in options]
    assert call("replay", compared, 1, "--agent", "mine", "--html", page, *words).status == ("--policy" in words)
    trials = page_data(page)["trials"]
    assert len(trials) == len(labels)
    for trial, label in zip(trials, labels, strict=True):
        assert trial["label"].startswith(label.format(**names))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--html", "x.html"), "--html needs the number of a trial"),
        (("1", "--html", "x.html", "--recompute"), "without --recompute"),
        (("1", "--policy", "wiped", "--recompute"), "without --recompute"),
        (("1", "--against", "wiped"), "need --html"),
        (("1", "--html", "x.html", "--against", "wipde"), "did you mean 'wiped'"),
        (("1", "--html", "x.html", "--against", "99"), "no trial 99"),
        (("1", "--html", "x.html", "--policy", "no/such/run"), "no/such/run"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    words: Sequence[str], named: str, compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = call("replay", compared, "--agent", "mine", *words)
    assert outcome.status == 2
    assert named in outcome.err
    assert outcome.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
