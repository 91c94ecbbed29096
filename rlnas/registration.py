"""The ids that ``gymnasium.make`` and ``gymnasium.make_vec`` know once ``rlnas`` is imported."""

from __future__ import annotations

from typing import Any

from gymnasium import register, registry

PLAIN: dict[str, Any] = {"space": {"kind": "chain"}, "tasks": "digits:train", "evaluator": {"kind": "sequential"}}
DIGITS: dict[str, Any] = {
    "space": {"kind": "chain", "max_layers": 3, "input_size": 8, "widths": [8, 16], "dense_widths": [32, 128]},
    "tasks": "digits:train",
    "evaluator": {"kind": "sequential", "adaptation": {"steps": 15, "learning_rate": 0.03, "momentum": 0.9}},
}


def _of_table(name: str, split: str) -> dict[str, Any]:
    """Arguments of an environment over a known table; its file is looked for when the environment is made."""
    table = {"kind": "table", "table": name}
    return {"space": table, "tasks": f"table:{name}:{split}", "evaluator": table}


DIGITS_TABLE = _of_table("digits", "train")
NASBENCH201, TRANSNAS_MICRO = _of_table("nasbench201", "train"), _of_table("transnas", "train")
NASBENCH_GRAPH, NASBENCH_MACRO = _of_table("nbgraph", "train"), _of_table("nbmacro", "all")

PRESETS: dict[str, dict[str, Any]] = {
    "rlnas/Design-v0": {**PLAIN, "designs_per_trial": 1},
    "rlnas/Trial-v0": {**PLAIN, "designs_per_trial": 10},
    "rlnas/Digits-v0": {**DIGITS, "designs_per_trial": 1},
    "rlnas/DigitsTrial-v0": {**DIGITS, "designs_per_trial": 10},
    "rlnas/DigitsTable-v0": {**DIGITS_TABLE, "designs_per_trial": 1},
    "rlnas/DigitsTableTrial-v0": {**DIGITS_TABLE, "designs_per_trial": 10},
    "rlnas/Edit-v0": {**PLAIN, "designs_per_trial": 1},
    "rlnas/EditTrial-v0": {**PLAIN, "designs_per_trial": 10},
    "rlnas/NASBench201-v0": {**NASBENCH201, "designs_per_trial": 1},
    "rlnas/NASBench201Trial-v0": {**NASBENCH201, "designs_per_trial": 10},
    "rlnas/TransNASMicro-v0": {**TRANSNAS_MICRO, "designs_per_trial": 1},
    "rlnas/TransNASMicroTrial-v0": {**TRANSNAS_MICRO, "designs_per_trial": 10},
    "rlnas/NASBenchGraph-v0": {**NASBENCH_GRAPH, "designs_per_trial": 1},
    "rlnas/NASBenchGraphTrial-v0": {**NASBENCH_GRAPH, "designs_per_trial": 10},
    "rlnas/NASBenchMacro-v0": {**NASBENCH_MACRO, "designs_per_trial": 1},
    "rlnas/NASBenchMacroTrial-v0": {**NASBENCH_MACRO, "designs_per_trial": 10},
}
"""Every id and the arguments that its environment is given under it."""
BY_EDITS = ("rlnas/Edit-v0", "rlnas/EditTrial-v0")
"""The ids under which networks are designed edit by edit."""
PROBLEMS = {"rlnas/Bandit-v0": "bandit:Bandit", "rlnas/TabularMDP-v0": "tabular_mdp:TabularMDP"}
"""The ids of published problems in which no network is designed, and where their environments are."""


def register_envs() -> None:
    """Register every id, once: edits by :class:`rlnas.envs.edit.EditEnv`, other designs by ``DesignEnv``."""
    for env_id, arguments in PRESETS.items():
        single, vector = ("design:DesignEnv", "vector:DesignVectorEnv")
        if env_id in BY_EDITS:
            single, vector = ("edit:EditEnv", "edit:EditVectorEnv")
        if env_id not in registry:
            register(
                env_id,
                entry_point=f"rlnas.envs.{single}",
                vector_entry_point=f"rlnas.envs.{vector}",
                kwargs={"env_id": env_id, **arguments},
            )
    for env_id, problem in PROBLEMS.items():
        if env_id not in registry:
            register(
                env_id,
                entry_point=f"rlnas.envs.{problem}Env",
                vector_entry_point=f"rlnas.envs.{problem}VectorEnv",
            )
