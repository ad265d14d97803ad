"""How far from its start a policy may go, as the mean KL of its answers: past that, back to the last one within."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ayni.online.learner import State

_KEPT = "within_kl", "returned", "pace"  # numbers that a resume needs


class KLBudget:
    """`nats` an answer, None for no bound. `within` is the last policy that was seen inside it, with its optimiser."""

    def __init__(self, nats: float | None) -> None:
        self.nats = nats
        self.within: State = {}, {}
        self.within_kl = 0.0
        self.returned = False  # whether the policy has just gone back
        self.pace = 1.0  # of its steps

    def admits(self, kl: float, progress: Callable[[], State]) -> bool:
        """Whether the policy that answered may go on; if so, and there is a bound, `progress` is what to go back to."""
        if self.nats is None:
            return True
        # one that was found within and is measured anew goes on, or chance could hold us here for ever
        if kl > self.nats and not self.returned:
            return False
        self.within, self.within_kl, self.returned = _copy(progress()), kl, False
        return True

    def last(self) -> State:
        """The policy to go back to: a copy, for an optimiser works on the tensors it is given."""
        return _copy(self.within)

    def hold_back(self) -> float:
        """After going back: halves `pace`, or leaves it and says by how much β must grow."""
        assert self.nats is not None  # nothing else sends a policy back
        self.returned = True
        if self.within_kl < 0.5 * self.nats:
            # one iteration went half the budget or more: no β holds a step back that begins where it charges little
            self.pace /= 2
            return 1.0
        # many went there: a smaller step would only come to the same place later
        return 2.0

    def state(self) -> State:
        tensors, numbers = self.within
        kept: dict[str, Any] = {name: getattr(self, name) for name in _KEPT}
        return {f"within.{name}": tensor for name, tensor in tensors.items()}, kept | {"within": numbers}

    def load(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        within = {name.removeprefix("within."): t for name, t in tensors.items() if name.startswith("within.")}
        self.within = within, numbers["within"]
        for name in _KEPT:
            setattr(self, name, numbers[name])


def _copy(state: State) -> State:
    tensors, numbers = state
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}, numbers
