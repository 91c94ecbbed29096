"""RL² on the problems of the paper that introduced it, beside what is known to do well at them.

Trains an agent for every seed, plays fresh trials with each frozen, and prints the tables and draws the pictures of
docs/results/published-problems.md. A seed that is finished in the output folder is not trained again.

    python benchmarks/published_problems.py --out runs/published
    python benchmarks/published_problems.py bandit-10 --seeds 3 --out runs/published
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv, VectorWrapper
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import t as student
from stable_baselines3.common.logger import configure

import rlnas  # noqa: F401 - registers the environments
from rlnas.agents.agent import Agent
from rlnas.agents.bandits import UCB1, GittinsIndex, GreedyArms, ThompsonSampling
from rlnas.agents.psrl import BeliefPlanner, PosteriorSampling
from rlnas.agents.rl2 import RL2
from rlnas.plots import STYLE, colour

FRESH_SEED = 2**32
"""Of the first trial that an agent is judged by; those it learns from have seeds below 2**31 + 1,024."""
SETTINGS: dict[str, Any] = {
    "cell": "lstm",
    "hidden_size": 64,
    "learning_rate": 3e-3,
    "final_learning_rate": 3e-4,
    "epochs": 4,
    "minibatches": 4,
    "discount": 0.99,
    "design_discount": 1.0,
    "entropy": 0.02,
    "autocast": True,
}


@dataclass(frozen=True)
class Experiment:
    """What is trained, how, and what it is compared with.

    Args:
        env: id of the problem.
        options: its arguments.
        seeds: agents that are trained.
        steps: environment steps that each learns from.
        trials: environments played at a time.
        judged: fresh trials that each agent plays.
        settings: of the learner, where they are not :data:`SETTINGS`.
        goal: the mean return that is wanted, if any.
        published: that of RL² in the paper, and of others.
        span: steps that memory lasts before training, see :func:`lengthen_memory`; 0 leaves it as the learner made it.
        feedback: what is done to the rewards in observations: ``"kept"``, ``"shuffled"`` or ``"hidden"``.
    """

    env: str
    options: dict[str, Any]
    seeds: int
    steps: int
    trials: int
    judged: int
    settings: dict[str, Any] = field(default_factory=dict)
    goal: float | None = None
    published: dict[str, float] = field(default_factory=dict)
    span: int = 0
    feedback: str = "kept"

    def make_env(self, count: int) -> VectorEnv:
        env = gym.make_vec(self.env, num_envs=count, **self.options)
        return env if self.feedback == "kept" else FedBack(env, self.feedback)


BANDIT_10 = Experiment(
    "rlnas/Bandit-v0",
    {"pulls": 10},
    seeds=10,
    steps=6_000_000,
    trials=1024,
    judged=10_000,
    goal=6.6,
    published={"RL²": 6.7, "random": 5.0, "Gittins index": 6.6, "Thompson sampling": 5.7, "greedy": 6.6},
)
BANDIT_100 = Experiment(
    "rlnas/Bandit-v0",
    {"pulls": 100},
    seeds=3,
    steps=12_000_000,
    trials=128,
    judged=10_000,
    settings={"gae_lambda": 0.8, "entropy": 0.06},
    span=100,
    goal=77.5,
    published={
        "RL²": 78.7,
        "random": 49.9,
        "Gittins index": 78.3,
        "Thompson sampling": 74.7,
        "greedy": 74.8,
    },
)
MDP_10 = Experiment(
    "rlnas/TabularMDP-v0",
    {"episodes": 10, "previous_state": True},
    seeds=3,
    steps=60_000_000,
    trials=256,
    judged=2_000,
    settings={
        "hidden_size": 128,
        "gae_lambda": 0.5,
        "entropy": 0.06,
        "learning_rate": 2e-3,
        "epochs": 3,
        "minibatches": 16,
    },
    span=100,
    goal=150,
    published={"RL²": 156.2, "random": 100.1, "posterior sampling": 138.1},
)


MDP_10_UNSHOWN = replace(MDP_10, options={"episodes": 10}, seeds=1)
"""The same where the memory has to keep the state that an action was taken in."""


def control(feedback: str) -> Experiment:
    return Experiment(
        **{**vars(BANDIT_10), "seeds": 3, "steps": 4_000_000, "goal": None, "published": {}, "feedback": feedback}
    )


EXPERIMENTS = {
    "bandit-10": BANDIT_10,
    "bandit-100": BANDIT_100,
    "mdp-10": MDP_10,
    "mdp-10-unshown": MDP_10_UNSHOWN,
    "bandit-10-shuffled": control("shuffled"),
    "bandit-10-hidden": control("hidden"),
}


class FedBack(VectorWrapper):
    """Rewards in observations are hidden, or each trial is shown another's; what is learned from stays as it is."""

    def __init__(self, env: VectorEnv, feedback: str) -> None:
        super().__init__(env)
        self.layout = env.layout  # type: ignore[attr-defined]
        self._shown = self.layout["reward"]
        self._hidden = feedback == "hidden"
        self._rng = np.random.default_rng()

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._rng = np.random.default_rng(seed)
        observation, info = self.env.reset(seed=seed, options=options)
        return self._changed(observation), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        observation, *rest = self.env.step(actions)
        return self._changed(observation), *rest  # type: ignore[return-value]

    def _changed(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        shown = observation[:, self._shown]
        observation[:, self._shown] = 0 if self._hidden else self._rng.permutation(shown)
        return observation


def play(
    env: VectorEnv, agent: Agent | None, seed: int, deterministic: bool = False, wiped: bool = False
) -> NDArray[np.float64]:
    """One trial of every environment; random actions without an agent.

    Args:
        wiped: before each step the agent's memory is wiped, and what observations tell of the step before.

    Returns:
        Rewards of shape (steps, num_envs).
    """
    rng = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    layout = env.layout  # type: ignore[attr-defined]
    state, over, rewards = None, np.ones(env.num_envs, dtype=np.bool_), []
    while not rewards or not over.any():
        if agent is None:
            actions = rng.integers(env.single_action_space.n, size=env.num_envs)  # type: ignore[attr-defined]
        else:
            if wiped:
                state = None
                for part in ("action", "reward", "design_ended"):
                    observation[:, layout[part]] = 0
            actions, state = agent.predict(observation, state, over, deterministic)
        observation, reward, over, _, _ = env.step(actions)
        rewards.append(reward)
    return np.array(rewards)


def lengthen_memory(learner: RL2, span: int) -> None:
    """Make an untrained LSTM forget after 1 to ``span`` steps, unit by unit, where it would after one or two.

    Tallec & Ollivier 2018, "Can recurrent neural networks warp time?" (https://arxiv.org/abs/1804.11188).
    """
    memory = learner.controller.memory
    with torch.no_grad():
        kept = torch.linspace(1, span - 1, memory.hidden_size).log()
        for bias, value in ((memory.bias_ih_l0, kept), (memory.bias_hh_l0, torch.zeros_like(kept))):
            entrance, forgetting, _, _ = bias.chunk(4)
            entrance.copy_(-value)
            forgetting.copy_(value)


def train(experiment: Experiment, seed: int, folder: Path) -> dict[str, Any]:
    """Train an agent, keep it in ``folder`` and judge it on fresh trials."""
    learner = RL2(experiment.make_env(experiment.trials), seed=seed, **{**SETTINGS, **experiment.settings})
    if experiment.span:
        lengthen_memory(learner, experiment.span)
    learner.set_logger(configure(str(folder), ["csv"]))
    started = time.process_time()
    learner.learn(experiment.steps)
    seconds = time.process_time() - started
    learner.logger.close()
    learner.controller.save(folder / "agent")
    rows = list(csv.DictReader((folder / "progress.csv").open()))
    fresh = experiment.make_env(experiment.judged)
    found: dict[str, Any] = {"seed": seed, "cpu_seconds": seconds, "steps": learner.num_timesteps}
    found["curve"] = [[float(row["time/total_timesteps"]), float(row["rollout/ep_rew_mean"])] for row in rows]
    ways = {"sampled": {}, "likeliest": {"deterministic": True}, "wiped": {"wiped": True}}
    for way, how in ways.items():
        rewards = play(fresh, learner, FRESH_SEED + seed * experiment.judged, **how)
        found[way] = {"return": rewards.sum(0).mean(), "of_step": rewards.mean(1).tolist()}
    return found


def references(experiment: Experiment, count: int) -> dict[str, NDArray[np.float64]]:
    """What agents that learn nothing beforehand reach in the trials that ours are judged by: returns, (count,)."""
    env = experiment.make_env(count)
    layout = env.layout  # type: ignore[attr-defined]
    agents: dict[str, Callable[[], Agent | None]] = {"random": lambda: None}
    if experiment.env == MDP_10.env:
        agents["posterior sampling"] = lambda: PosteriorSampling(layout)
        agents["planning by belief"] = lambda: BeliefPlanner(layout)
    else:
        agents["Gittins index"] = lambda: GittinsIndex(layout, experiment.options["pulls"])
        agents |= {"greedy": lambda: GreedyArms(layout), "Thompson sampling": lambda: ThompsonSampling(layout)}
        agents["UCB1"] = lambda: UCB1(layout)
    return {name: play(env, make(), FRESH_SEED).sum(0) for name, make in agents.items()}


def mean_of(values: Any) -> str:
    """A mean and, of several independent values, half its 95% interval (Student's)."""
    values = np.asarray(values, dtype=np.float64)
    if len(values) == 1:
        return f"{values[0]:.3f}"
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():.3f} ± {half:.3f}"


def table_of_returns(name: str, experiment: Experiment, found: list[dict[str, Any]]) -> None:
    """Ours over seeds, each of which plays trials of its own; the others over all of these trials."""
    judged = len(found) * experiment.judged
    print(f"\n## {name}: {len(found)} seeds, {experiment.judged:,} fresh trials each\n")
    print("| agent | mean return | published |\n|---|---|---|")
    published = experiment.published
    ours = {"RL², actions sampled": "sampled", "RL², likeliest actions": "likeliest"}
    for agent, way in ours.items():
        print(f"| {agent} | {mean_of([f[way]['return'] for f in found])} | {published.get('RL²', '')} |")
    for agent, returns in references(experiment, judged).items():
        print(f"| {agent} | {mean_of(returns)} | {published.get(agent, '')} |")
    each = ", ".join(f"{f['sampled']['return']:.2f}" for f in found)
    spent = np.mean([f["cpu_seconds"] for f in found]) / 60
    steps = np.mean([f["steps"] for f in found]) / 1e6
    print(
        f"\nEach seed, sampled: {each}. Goal: {experiment.goal}. {steps:.1f} M steps, {spent:.1f} CPU-minutes a seed."
    )


def table_of_controls(found: dict[str, list[dict[str, Any]]]) -> None:
    """The reward of the first pull and of the last, and how much more the last is."""
    rows = {
        "RL²": ("bandit-10", "sampled"),
        "memory wiped before each pull": ("bandit-10", "wiped"),
        "rewards of other trials fed back": ("bandit-10-shuffled", "sampled"),
        "rewards hidden": ("bandit-10-hidden", "sampled"),
    }
    print("\n## controls, bandits of 10 pulls\n")
    print("| agent | seeds | mean return | first pull | last pull | last - first |\n|---|---|---|---|---|---|")
    for agent, (name, way) in rows.items():
        runs = [f[way] for f in found.get(name, [])]
        if not runs:
            continue
        pulls = np.array([run["of_step"] for run in runs])
        cells = [[run["return"] for run in runs], pulls[:, 0], pulls[:, -1], pulls[:, -1] - pulls[:, 0]]
        print(f"| {agent} | {len(runs)} | {' | '.join(mean_of(cell) for cell in cells)} |")


def draw(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Learning curves of every seed, the published returns as lines."""
    shown = [name for name in found if EXPERIMENTS[name].published]
    with rc_context({**STYLE, "svg.hashsalt": "published-problems"}):
        figure = Figure(figsize=(3.6 * len(shown), 3.2), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            for run in found[name]:
                steps, returns = np.array(run["curve"]).T
                parts = np.array_split(np.arange(len(steps)), min(100, len(steps)))
                axes.plot(
                    *([values[part].mean() for part in parts] for values in (steps / 1e6, returns)),
                    color=colour(0),
                    lw=0.8,
                )
            levels = EXPERIMENTS[name].published
            for index, (agent, level) in enumerate(levels.items()):
                if agent in ("RL²", "random", "Gittins index", "posterior sampling"):
                    axes.axhline(level, color=colour(index + 1), lw=1, ls="--", label=f"{agent} (published)")
            axes.set(title=name, xlabel="million steps", ylabel="mean return while learning")
            axes.legend(frameon=False, loc="lower right", fontsize=7)
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(EXPERIMENTS)}; all by default")
    parser.add_argument("--seeds", type=int, help="of each, if not as many as the results page has")
    parser.add_argument("--out", type=Path, default=Path("runs/published"))
    options = parser.parse_args()
    if unknown := set(options.names) - set(EXPERIMENTS):
        parser.error(f"no such experiment: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    found: dict[str, list[dict[str, Any]]] = {}
    for name in options.names or EXPERIMENTS:
        found[name] = []
        for seed in range(options.seeds or EXPERIMENTS[name].seeds):
            file = options.out / name / f"seed-{seed}.json"
            if not file.exists():
                result = train(EXPERIMENTS[name], seed, options.out / name / f"seed-{seed}")
                file.write_text(json.dumps(result))
                print(
                    f"{name} seed {seed}: {result['sampled']['return']:.2f}, {result['cpu_seconds']:.0f} s", flush=True
                )
            found[name].append(json.loads(file.read_text()))
    for name, runs in found.items():
        if EXPERIMENTS[name].published:
            table_of_returns(name, EXPERIMENTS[name], runs)
    if "bandit-10" in found:
        table_of_controls(found)
    draw(found, options.out / "published-problems.svg")


if __name__ == "__main__":
    main()
