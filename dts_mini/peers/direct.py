"""Compressing the expert itself, not what it adds to theta_0: the base is all zeros, and no theta_0 is needed."""

from collections.abc import Mapping

import torch

from dts_mini.core.personal import personalise
from dts_mini.core.state import State, exactly
from dts_mini.peers.low_rank import low_rank
from dts_mini.peers.peer import Peer


@exactly
def direct_low_rank(theta_0: State, experts: Mapping[str, State], budget: int | str | None = None, **settings) -> Peer:
    """``low_rank`` of the expert itself; ``settings`` are its own."""
    return low_rank(_zeros(theta_0), experts, budget, **settings)


@exactly
def direct(theta_0: State, experts: Mapping[str, State], budget: int | str | None = None, **settings) -> Peer:
    """``compress`` of the expert itself, by DTS or, with ``method="drc"``, by DRC; ``settings`` are its own."""
    zeros = _zeros(theta_0)
    return Peer(zeros, personalise(zeros, experts, budget=budget, **settings))


def _zeros(theta_0: State) -> dict[str, torch.Tensor]:
    return {name: torch.zeros_like(tensor) for name, tensor in theta_0.items()}
