"""Running means of the loss terms, kept on the device so that a step never waits for the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastccsa.training.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Summary:
    """What a meter says.

    Attributes:
        means: mean of each term over the samples, by name.
        bad_step: the first step whose loss was NaN or infinite, counted from 0; -1 where there is none.
        bad_terms: the terms of that step, by name.
    """

    means: dict[str, float]
    bad_step: int
    bad_terms: dict[str, float]


class Meter:
    """Means of loss terms over the samples of an epoch, and the first step whose loss was not finite.

    Args:
        terms: their names; the first is the loss.
        device: where they are summed, in float64.
    """

    def __init__(self, terms: Sequence[str], device: torch.device) -> None:
        self.terms = tuple(terms)
        self.sums = torch.zeros(len(self.terms), dtype=torch.float64, device=device)
        self.samples = torch.zeros((), dtype=torch.float64, device=device)
        self.step = torch.zeros_like(self.samples)
        self.bad_step = torch.full_like(self.samples, -1)
        self.bad_terms = torch.zeros_like(self.sums)
        self._underway: tuple[Tensor, torch.cuda.Event] | None = None

    def restart(self, step: int = 0) -> None:
        """Forget everything; ``step`` is the number of the step that comes next."""
        # In place, here as elsewhere: a CUDA graph replays these very tensors.
        for tensor in (self.sums, self.samples, self.bad_terms):
            tensor.zero_()
        self.step.fill_(step)
        self.bad_step.fill_(-1)
        self._underway = None

    def update(self, values: Tensor, samples: int) -> None:
        """Count the terms ``values`` [len(terms)] of the next step, means over ``samples`` rows."""
        values = values.detach().double()
        self.sums += values * samples
        self.samples += samples
        is_first = ~torch.isfinite(values[0]) & (self.bad_step < 0)
        self.bad_step.copy_(torch.where(is_first, self.step, self.bad_step))
        self.bad_terms.copy_(torch.where(is_first, values, self.bad_terms))
        self.step += 1

    @property
    def is_bad(self) -> Tensor:
        """Whether a loss was not finite: 1 or 0, float32 [], on the device."""
        return (self.bad_step >= 0).float()

    def summary(self, ranks: Ranks = ALONE) -> Summary:
        """Sum up all steps so far, of all ranks; waits for the device. Every rank must call it."""
        packed = self._packed()
        sums = ranks.sum(packed[: len(self.terms) + 1].clone())
        return self._unpack(torch.cat([sums, packed[len(sums) :]]).cpu())

    def look(self) -> Summary | None:
        """Sum up this rank's steps without waiting for the device.

        On CUDA that is what there was to see at the last look, and None where it has not arrived yet.
        """
        packed = self._packed()
        if packed.device.type == "cpu":
            return self._unpack(packed)
        before = self._underway
        host = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
        host.copy_(packed, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._underway = host, event
        return self._unpack(before[0]) if before is not None and before[1].query() else None

    def state_dict(self, ranks: Ranks = ALONE) -> dict[str, Tensor | int]:
        """Return what `load_state_dict` needs to go on counting, of all ranks. Every rank must call it."""
        packed = ranks.sum(self._packed()[: len(self.terms) + 1].clone()).cpu()
        return {"sums": packed[:-1].clone(), "samples": int(packed[-1])}

    def load_state_dict(self, state: dict[str, Tensor | int], ranks: Ranks = ALONE) -> None:
        """Go on from a `state_dict` of the same terms; one rank carries what all had counted."""
        if ranks.is_first:
            self.sums.copy_(torch.as_tensor(state["sums"]))
            self.samples.fill_(int(state["samples"]))

    def _packed(self) -> Tensor:
        return torch.cat([self.sums, self.samples[None], self.bad_step[None], self.bad_terms])

    def _unpack(self, packed: Tensor) -> Summary:
        count = len(self.terms)
        values = packed.tolist()
        means = [value / max(values[count], 1) for value in values[:count]]
        return Summary(
            dict(zip(self.terms, means, strict=True)),
            int(values[count + 1]),
            dict(zip(self.terms, values[count + 2 :], strict=True)),
        )
