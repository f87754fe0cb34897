"""Calls that run ahead in threads, with their results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], executor: Executor, depth: int
) -> Generator[Result, None, None]:
    """Yield ``function(item)`` for each item, with up to ``depth`` calls running ahead in ``executor``.

    Closing the iterator cancels the calls that have not started. An exception is raised where its result would be.
    """
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(executor.submit(function, item))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
