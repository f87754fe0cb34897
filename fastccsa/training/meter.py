"""Running means of the loss terms, kept on the device so that a step never waits for the host."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastccsa.errors import InputError


class Meter:
    """Means of loss terms over the samples of an epoch, and the first step whose loss was not finite.

    Args:
        terms: their names; the first is the loss.
        device: where they are summed, in float64.
    """

    def __init__(self, terms: Sequence[str], device: torch.device) -> None:
        self.terms = tuple(terms)
        self.sums = torch.zeros(len(self.terms), dtype=torch.float64, device=device)
        self.samples = 0
        self.bad_step = torch.full((), -1, dtype=torch.int64, device=device)

    def update(self, values: Tensor, samples: int, step: int) -> None:
        """Count the terms ``values`` [len(terms)], means over ``samples`` rows, of step ``step``."""
        values = values.detach()
        self.sums += values * samples
        self.samples += samples
        is_first = ~torch.isfinite(values[0]) & (self.bad_step < 0)
        self.bad_step = torch.where(is_first, step, self.bad_step)

    def means(self, epoch: int) -> dict[str, float]:
        """Take the means so far, by term; waits for the device.

        Raises:
            InputError: a loss was NaN or infinite; names the epoch and step, counted from 1.
        """
        step = int(self.bad_step.item())
        if step >= 0:
            raise InputError(
                f"the loss is not finite at epoch {epoch + 1}, step {step + 1}: the training diverged; "
                "start again in another folder with a lower lr (the last checkpoint is kept)"
            )
        means = (self.sums / max(self.samples, 1)).tolist()
        return dict(zip(self.terms, means, strict=True))

    def state_dict(self) -> dict[str, Tensor | int]:
        """Return what `load_state_dict` needs to go on counting."""
        return {"sums": self.sums.cpu(), "samples": self.samples}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Go on from a `state_dict` of the same terms."""
        self.sums.copy_(torch.as_tensor(state["sums"]))
        self.samples = int(state["samples"])
