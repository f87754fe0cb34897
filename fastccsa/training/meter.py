"""Running means of the loss terms, kept on the device so that a step needs no host sync."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastccsa.training.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Summary:
    """The content of a meter.

    Attributes:
        means: mean of each term over the samples, by name.
        bad_step: the first step whose loss was NaN or infinite, counted from 0; -1 if there is none.
        bad_terms: the terms of that step, by name.
    """

    means: dict[str, float]
    bad_step: int
    bad_terms: dict[str, float]


class Meter:
    """Means of loss terms over the samples of an epoch, and the first step whose loss was not finite.

    Args:
        terms: names of the terms; the first is the loss.
        device: where the terms are summed, in float64.
    """

    def __init__(self, terms: Sequence[str], device: torch.device) -> None:
        self.terms = tuple(terms)
        self.sums = torch.zeros(len(self.terms), dtype=torch.float64, device=device)
        self.samples = torch.zeros((), dtype=torch.float64, device=device)
        self.step = torch.zeros_like(self.samples)
        self.bad_terms = torch.zeros_like(self.sums)
        self._bad_steps = torch.zeros_like(self.samples)  # the first bad one and all since
        # The sum of 0 times each loss: it is NaN from the first loss on that is not finite.
        self._finite = torch.zeros((), device=device)
        self._zero = torch.zeros((), device=device)
        self._is_bad = torch.zeros((), device=device)
        self._pending: tuple[Tensor, torch.cuda.Event] | None = None

    def restart(self, step: int = 0) -> None:
        """Reset the meter; ``step`` is the number of the next step."""
        # All updates are in place, because a CUDA graph uses the same tensors in every replay.
        for tensor in (self.sums, self.samples, self.bad_terms, self._bad_steps, self._finite, self._is_bad):
            tensor.zero_()
        self.step.fill_(step)
        self._pending = None

    def update(self, values: Tensor, samples: int) -> None:
        """Add the terms of the next step: ``values`` [len(terms)], each a mean over ``samples`` rows."""
        # On a GPU, each of these lines launches a kernel or two in every step: they are as few as possible.
        values = values.detach()
        self.sums.add_(values, alpha=samples)
        torch._foreach_add_([self.samples, self.step], [float(samples), 1.0])
        self._finite.addcmul_(values[0], self._zero)
        torch.ne(self._finite, self._finite, out=self._is_bad)
        self._bad_steps.add_(self._is_bad)
        torch.where(self._bad_steps == 1, values.to(self.sums), self.bad_terms, out=self.bad_terms)

    @property
    def is_bad(self) -> Tensor:
        """Whether a loss was not finite: 1 or 0, float32 [], on the device; do not change it."""
        return self._is_bad

    def summary(self, ranks: Ranks = ALONE) -> Summary:
        """Summarise all steps so far over all ranks; syncs with the device. Every rank must call it."""
        packed = self._packed()
        sums = ranks.sum(packed[: len(self.terms) + 1].clone())
        return self._unpack(torch.cat([sums, packed[len(sums) :]]).cpu())

    def look(self) -> Summary | None:
        """Summarise this rank's steps without a host sync.

        On CUDA it returns the summary as of the previous call, or None if the copy has not arrived yet.
        """
        packed = self._packed()
        if packed.device.type == "cpu":
            return self._unpack(packed)
        before = self._pending
        host = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
        host.copy_(packed, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._pending = host, event
        return self._unpack(before[0]) if before is not None and before[1].query() else None

    def state_dict(self, ranks: Ranks = ALONE) -> dict[str, Tensor | int]:
        """Return the sums over all ranks, for `load_state_dict`. Every rank must call it."""
        packed = ranks.sum(self._packed()[: len(self.terms) + 1].clone()).cpu()
        return {"sums": packed[:-1].clone(), "samples": int(packed[-1])}

    def load_state_dict(self, state: dict[str, Tensor | int], ranks: Ranks = ALONE) -> None:
        """Continue from a `state_dict` of the same terms; the first rank holds the sums of all."""
        if ranks.is_first:
            self.sums.copy_(torch.as_tensor(state["sums"]))
            self.samples.fill_(int(state["samples"]))

    def _packed(self) -> Tensor:
        bad_step = torch.where(self._bad_steps > 0, self.step - self._bad_steps, -1.0)
        return torch.cat([self.sums, self.samples[None], bad_step[None], self.bad_terms])

    def _unpack(self, packed: Tensor) -> Summary:
        count = len(self.terms)
        values = packed.tolist()
        means = [value / max(values[count], 1) for value in values[:count]]
        return Summary(
            dict(zip(self.terms, means, strict=True)),
            int(values[count + 1]),
            dict(zip(self.terms, values[count + 2 :], strict=True)),
        )
