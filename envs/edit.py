"""The edit environments: the state is a complete network, and actions change it, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlnas.edits import WAIT, ChainEdits, require_chain

from .design import DesignEnv, known_arguments, make_settings
from .edited_designs import EditedDesigns
from .observation import EditLayout
from .trial import TrialSettings
from .vector import DesignVectorEnv


@dataclass(frozen=True, kw_only=True)
class EditSettings(TrialSettings):
    """Everything that decides how trials go in which designs are made by edits."""

    edits: ChainEdits

    @property
    def layout(self) -> EditLayout:
        return EditLayout(self.edits)

    @property
    def num_actions(self) -> int:
        return len(self.edits.names)

    def designs(self, count: int) -> EditedDesigns:
        return EditedDesigns(self.edits, count, refuse=self.duplicates == "refuse")

    def spec(self) -> dict[str, Any]:
        return {**super().spec(), "edits": self.edits.spec()}


def make_edit_settings(
    *, env_id: str = "rlnas/Edit-v0", max_edits: int | None = None, start: str = "empty", **arguments: Any
) -> EditSettings:
    """Settings from what a user may write for :class:`EditEnv`'s arguments.

    Raises:
        ConfigurationError: if an argument is unknown or has a value that is not allowed.
    """
    settings = make_settings(env_id=env_id, **known_arguments(arguments, ("max_edits", "start")))
    space = require_chain(settings.space)
    edits = ChainEdits(space, 2 * space.max_layers if max_edits is None else max_edits, start)
    return EditSettings(**vars(settings), edits=edits)


class EditEnv(DesignEnv):
    """Design networks, edit by edit, for a task that is drawn at each reset.

    Like :class:`~rlnas.envs.design.DesignEnv`, whose rewards, info, reset options and other arguments it has, except
    that every design begins as a complete network and each action changes it.

    ## Observations
    A float32 vector whose named slices :class:`~rlnas.envs.observation.EditLayout` documents.

    ## Actions
    ``Discrete``: the edits that :class:`~rlnas.edits.ChainEdits` describes, the last of which submits the design.
    ``env.unwrapped.settings.edits.names`` names them. The vector environment also takes -1, which leaves a trial as it
    is: trials differ in length, and one that is over can wait for the others.

    ## Episode end
    Terminates after ``designs_per_trial`` designs. A design is complete when it is submitted, and at the latest after
    ``max_edits`` actions.

    ## Arguments
    Args:
        max_edits: actions that a design may take; by default twice the layers of the space, with which any network
            can be made of any other.
        start: ``"empty"``, so that every design begins as the network without layers, or ``"incumbent"``: as the best
            one of the trial so far, where there is one.
        settings: the arguments of :class:`~rlnas.envs.design.DesignEnv`; the space must be a chain. With
            ``duplicates="refuse"`` it is illegal to complete a network that the trial has evaluated, however it was
            made; if a design's last action can make no other, all are legal.

    ## Version history
    * v0: first version.
    """

    def _make_settings(self, arguments: dict[str, Any]) -> EditSettings:
        return make_edit_settings(**arguments)


class EditVectorEnv(DesignVectorEnv):
    """``num_envs`` trials of :class:`EditEnv`, bit for bit what that many single ones do.

    See :class:`~rlnas.envs.vector.DesignVectorEnv`. The action -1 leaves a trial as it is.
    """

    idle_action = WAIT

    def _make_settings(self, arguments: dict[str, Any]) -> EditSettings:
        return make_edit_settings(**arguments)
