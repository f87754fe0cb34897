from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastccsa.images.readahead import read_ahead


def test_the_first_calls_start_before_the_first_result_is_requested() -> None:
    started = [threading.Event() for _ in range(5)]

    def call(item: int) -> int:
        started[item].set()
        return item * item

    with ThreadPoolExecutor(1) as executor:
        results = read_ahead(call, range(5), executor, 2)
        assert started[1].wait(60)
        assert not started[2].is_set()
        assert next(results) == 0
        assert started[2].wait(60)
        assert list(results) == [1, 4, 9, 16]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_results_are_in_order_whatever_the_depth(count) -> None:
    with ThreadPoolExecutor(3) as executor:
        for depth in (1, 2, 5):
            found = list(read_ahead(lambda item: -item, range(count), executor, depth))
            assert found == [-item for item in range(count)]


def test_an_exception_is_raised_where_its_result_would_be() -> None:
    with ThreadPoolExecutor(1) as executor:
        results = read_ahead(lambda item: 6 // item, (2, 1, 0), executor, 2)
        assert (next(results), next(results)) == (3, 6)
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_closing_cancels_calls_that_have_not_started() -> None:
    done, permits = [], threading.Semaphore(0)

    def call(item: int) -> None:
        assert permits.acquire(timeout=60)
        done.append(item)

    with ThreadPoolExecutor(1) as executor:
        results = read_ahead(call, range(9), executor, 3)
        permits.release()
        next(results)
        results.close()
        permits.release(9)
    assert done in ([0], [0, 1])  # the second call may have started
