"""Writes recorded trials as a Minari dataset (https://minari.farama.org), for offline reinforcement learning.

An episode of the dataset is a trial. Observations are rebuilt from the record, see :mod:`rlnas.rebuilding`; rewards are
the recorded ones. ``infos`` has the environment's keys at every step, of which there is one more than actions:

================= ======== ================ ==================================================================
key               dtype    shape            content
================= ======== ================ ==================================================================
action_mask       int8     (T + 1, actions) 1 for each legal action
design_ended      bool     (T + 1,)         whether the action before completed a design
accuracy          float64  (T + 1,)         of the design just completed, else 0
best_accuracy     float64  (T + 1,)         of the trial so far
design            int64    (T + 1,)         designs completed
task              bytes    (T + 1,)         its name
architecture      bytes    (T + 1,)         canonical text of the design just completed, else empty
status            bytes    (T + 1,)         how its evaluation ended, else empty
================= ======== ================ ==================================================================

Text is UTF-8, which Minari's HDF5 files give back as bytes. A trial that was cut short, by a kill say, ends with a
truncation after its last recorded design. An episode's metadata have its ``agent``, ``trial``, ``task`` and
``task_digest``; ``seed`` and ``options`` are those of the environment's reset.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import gymnasium

import rlnas
from rlnas.episode import DesignEpisode
from rlnas.errors import ConfigurationError
from rlnas.optional import imported
from rlnas.rebuilding import Rebuilt, RecordedEnv, rebuilt_trials
from rlnas.registration import BY_EDITS, PRESETS


@dataclass(frozen=True, slots=True)
class MinariSize:
    """What was written.

    Args:
        path: the dataset's folder.
        episodes: trials.
        steps: actions.
        truncated: trials that had been cut short.
    """

    path: Path
    episodes: int
    steps: int
    truncated: int


def export_minari(episodes: Iterable[DesignEpisode], dataset_id: str) -> MinariSize:
    """Write a dataset that ``minari.load_dataset(dataset_id)`` opens.

    It lies in Minari's own folder: the one that the environment variable ``MINARI_DATASETS_PATH`` names, else
    ``~/.minari/datasets``. ``recover_environment`` makes the environment in which the trials were recorded.

    Args:
        episodes: of one environment, such as :meth:`rlnas.store.EpisodeStore.episodes` gives. Memory use does not grow
            with their number.
        dataset_id: ``NAME-vVERSION`` or ``NAMESPACE/NAME-vVERSION``.

    Raises:
        ConfigurationError: if there is such a dataset already, the id is not Minari's form, there are no episodes or
            those of several environments, the environment cannot be made here, or Minari is not installed.
        DataError: if a trial cannot be rebuilt, see :meth:`rlnas.rebuilding.RecordedEnv.rebuild`.
        StoreError: whatever reading the episodes raises.
    """
    minari = imported("minari", "--minari", "export")
    imported("h5py", "--minari", "export")
    folder = _new_folder(dataset_id)
    episodes = iter(episodes)
    first = next(episodes, None)
    if first is None:
        raise ConfigurationError("there are no episodes to make a dataset of")
    env = RecordedEnv(first.env).env.unwrapped
    env.spec = env_spec(first.env)
    written = _Written()
    with _removed_on_error(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Minari misses an author and a link to the code
        dataset = minari.create_dataset_from_buffers(
            dataset_id,
            written.buffers(_of_one_env(chain([first], episodes), first.env)),
            env=env,
            algorithm_name="rlnas",
            description=f"Trials of network design, recorded by rlnas {rlnas.__version__} in {first.env['id']}.",
            requirements=[f"rlnas>={rlnas.__version__}"],
        )
        dataset.storage.update_episode_metadata(written.metadata, range(len(written.metadata)))
    return MinariSize(folder, len(written.metadata), written.steps, written.truncated)


def env_spec(description: dict[str, Any]) -> gymnasium.envs.registration.EnvSpec:
    """What ``gymnasium.make`` makes a recorded environment of.

    Args:
        description: as episodes have it in ``env``.
    """
    settings = {**description, "env_id": description["id"], "tasks": [description["tasks"], description["split"]]}
    edits = settings.pop("edits", {})
    for name in ("id", "split"):
        del settings[name]
    usual = "rlnas/Edit-v0" if edits else "rlnas/Design-v0"
    same_kind = description["id"] in PRESETS and (description["id"] in BY_EDITS) == bool(edits)
    spec = gymnasium.spec(description["id"] if same_kind else usual)
    return replace(spec, kwargs={**settings, **edits})


class _Written:
    """Makes Minari's buffers of trials, and keeps count of them."""

    def __init__(self) -> None:
        self.metadata: list[dict[str, Any]] = []
        self.steps = 0
        self.truncated = 0

    def buffers(self, episodes: Iterable[DesignEpisode]) -> Iterator[Any]:
        for trial, shown in rebuilt_trials(episodes):
            first = trial[0]
            self.metadata.append({name: getattr(first, name) for name in ("agent", "trial", "task", "task_digest")})
            self.steps += len(shown.actions)
            self.truncated += bool(shown.truncations[-1])
            yield _buffer(first, shown)


def _buffer(first: DesignEpisode, shown: Rebuilt) -> Any:
    buffers = imported("minari.data_collector", "--minari", "export")
    texts = {key: values.tolist() for key, values in shown.infos.items() if values.dtype.kind == "U"}
    return buffers.EpisodeBuffer(
        seed=first.seed,
        options={"task": int(first.task.rpartition("/")[2]), "trial": first.trial},
        observations=shown.observations,
        actions=shown.actions,
        rewards=shown.rewards,
        terminations=shown.terminations,
        truncations=shown.truncations,
        infos={**shown.infos, **texts},
    )


def _of_one_env(episodes: Iterable[DesignEpisode], env: dict[str, Any]) -> Iterator[DesignEpisode]:
    for episode in episodes:
        if episode.env is not env and episode.env != env:
            raise ConfigurationError(
                f"agent {episode.agent!r}, trial {episode.trial} was recorded in another environment than those before "
                f"({episode.env['id']}, {env['id']}): a dataset has one; choose with --agent"
            )
        yield episode


def _new_folder(dataset_id: str) -> Path:
    """The folder of a dataset that does not exist yet."""
    datasets = imported("minari.dataset.minari_dataset", "--minari", "export")
    try:
        datasets.parse_dataset_id(dataset_id)
    except (TypeError, ValueError):  # the former where there is no version
        wanted = "NAME-vVERSION or NAMESPACE/NAME-vVERSION, such as rlnas/digits-v0"
        raise ConfigurationError(f"a Minari dataset's id must be {wanted}, got {dataset_id!r}") from None
    folder = Path(imported("minari.storage", "--minari", "export").get_dataset_path(dataset_id))
    if folder.exists():
        raise ConfigurationError(f"{folder} exists already; choose another version")
    return folder


@contextmanager
def _removed_on_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
