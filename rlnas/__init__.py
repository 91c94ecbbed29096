"""rlnas: reinforcement-learning controllers for neural-architecture search, as Gymnasium environments.

Importing it registers the environments (``gymnasium.make("rlnas/DigitsTrial-v0")``) and loads neither torch nor them.
"""

from __future__ import annotations

from rlnas.registration import register_envs

__version__ = "0.1.0"

register_envs()
