"""What a run does when the memory of its GPU is full: it keeps its images elsewhere, or says what to change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fastccsa.images.choices import Cache
from fastccsa.runs.checkpoint import has_checkpoint
from fastccsa.runs.config import TrainConfig
from fastccsa.system.errors import InputError
from fastccsa.system.gpu_memory import ran_out
from fastccsa.training.ranks import Ranks

IN_GPU: tuple[Cache, ...] = ("gpu", "sharded")


class FullError(InputError):
    """The memory of the GPU is full.

    Attributes:
        reason: the first line of the original error.
        cache: where the run kept its images.
        following: the caches with which it may fit, the best one first; empty if there is none.
    """

    def __init__(self, message: str, reason: str, cache: Cache, following: tuple[Cache, ...]) -> None:
        super().__init__(message)
        self.reason, self.cache, self.following = reason, cache, following


@contextmanager
def report_full_memory(config: Callable[[], TrainConfig], caches: Sequence[Cache], ranks: Ranks) -> Iterator[None]:
    """Turn the error of a full GPU into a `FullError` within the block.

    Args:
        config: returns the configuration, with the cache that is in use.
        caches: those that the run may use, the best one first.
        ranks: the processes that train together. One of them may be alone in having no memory left, while the others
            wait for it in the middle of a step: they cannot go on with another cache together.
    """
    try:
        yield
    except RuntimeError as error:
        if not ran_out(error):
            raise
        reason = str(error).split("\n")[0].rstrip(".")
        used = config()
        following = _following(used, caches) if ranks.is_alone else ()
        raise FullError(_advice(used, reason), reason, used.cache, following) from error


def _following(config: TrainConfig, caches: Sequence[Cache]) -> tuple[Cache, ...]:
    """Return the caches after the one in use that leave more of the GPU's memory free."""
    if config.cache not in IN_GPU:
        return ()
    later = caches[caches.index(config.cache) + 1 :]
    # Decoded images differ a little from cached ones: a run that has saved its state does not change to them.
    return tuple(cache for cache in later if cache != "none" or not has_checkpoint(Path(config.out)))


def _advice(config: TrainConfig, reason: str) -> str:
    smaller = "a smaller --batch-size (--accumulate keeps the size of a step)"
    if config.amp == "none":
        smaller += " or --amp bfloat16"
    advice = f"start again in another folder with {smaller}"
    if config.cache in IN_GPU:
        advice = f"repeat the command with --cache ram, which keeps the images in main memory, or {advice}"
    return f"the GPU's memory is full ({reason}): end other programs that use it, {advice}"
