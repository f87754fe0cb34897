"""Calls that run ahead in threads, with their results in order."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], executor: Executor, depth: int
) -> Generator[Result, None, None]:
    """Yield ``function(item)`` for each item, with up to ``depth`` calls running ahead in ``executor``.

    The first calls start at once, before the first result is requested. Closing the iterator cancels the calls that
    have not started. An exception is raised where its result would be.
    """
    left = iter(items)
    pending = deque(executor.submit(function, item) for item in itertools.islice(left, depth))
    return _results(function, left, executor, pending)


def _results(
    function: Callable[[Item], Result], left: Iterator[Item], executor: Executor, pending: deque[Future[Result]]
) -> Generator[Result, None, None]:
    try:
        for item in left:
            pending.append(executor.submit(function, item))
            yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
