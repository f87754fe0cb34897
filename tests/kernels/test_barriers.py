"""Named barriers, mbarriers and dynamic shared memory of the emulator work, and their faults are found."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from .cases import ORDERS, SANITIZER_OPTIONS
from .programs import MEMORY, Builder

BLOCKS, THREADS, ITEMS = 2, 128, 7
PIPELINE = [sum(100 * item + (lane + 1) % 32 for item in range(ITEMS)) for lane in range(32)]
RESULTS = {
    "pipeline": BLOCKS * (32 * [0] + PIPELINE + 64 * [0]),
    "exchange_in_pairs": BLOCKS * [200 + (thread ^ 32) for thread in range(THREADS)],
    "copy_for_both": BLOCKS * [sum(1000 * turn + thread for turn in range(5)) for thread in range(THREADS)],
    "copy_in_halves": BLOCKS * [*range(THREADS)],
    "dynamic_shared_at_first": BLOCKS * THREADS * [-1],
}


@pytest.fixture(scope="module")
def barriers(builder: Builder) -> Path:
    return builder.emulated("run_barriers", builder.memory_or_plain())


@pytest.fixture(scope="module")
def barriers_for_races(builder: Builder) -> Path:
    return builder.emulated("run_barriers", builder.races())


def run(program: Path, kernel: str, order: str = "forward") -> subprocess.CompletedProcess[str]:
    command = [program, kernel, str(ORDERS.index(order))]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **SANITIZER_OPTIONS})


def values(program: Path, kernel: str, order: str = "forward") -> list[int]:
    done = run(program, kernel, order)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kernel", RESULTS)
def test_correct_kernels(barriers: Path, kernel: str, order: str) -> None:
    assert values(barriers, kernel, order) == RESULTS[kernel]


# The phases of an mbarrier that nobody waits for overtake those that somebody waits for.
MISSING = [
    ("no_wait_for_full", "pipeline"),
    ("no_wait_for_empty", "pipeline"),
    ("no_barrier", "exchange_in_pairs"),
    ("no_wait_for_copies", "copy_for_both"),
    ("no_wait_for_the_cluster", "copy_for_both"),
    ("wait_for_one_half", "copy_in_halves"),
]


@pytest.mark.parametrize(("kernel", "correct"), MISSING)
def test_a_missing_wait_shows(barriers: Path, kernel: str, correct: str) -> None:
    outcomes = [run(barriers, kernel, order) for order in ORDERS]
    right = " ".join(map(str, RESULTS[correct]))
    assert any(outcome.returncode != 0 or outcome.stdout.strip() != right for outcome in outcomes)


ERRORS = [
    ("no_arrival", ["a barrier waits for threads", "for parity 0", "in phase 2 and lacks 1 of 32 arrivals"]),
    ("other_parity", ["threads 0 to 31: in barrier_wait", "in phase 0 and lacks 32 of 32 arrivals"]),
    ("too_many_arrivals", ["a barrier waits for threads", "of 16 arrivals"]),
    ("no_initialisation", ["there is no initialised mbarrier at address"]),
    ("overwritten", ["an mbarrier was overwritten at address"]),
    ("misaligned", ["is not that of 8 aligned bytes in dynamic shared memory"]),
    ("other_id", ["for 64 threads with id 2", "for 64 threads with id 3"]),
    ("id_of_the_block", ["a named barrier has a number from 1 to 15"]),
    ("other_count", ["for 64 threads with id 2", "for 96 threads with id 2"]),
    ("part_of_a_warp", ["a named barrier is for whole warps"]),
    ("lanes_apart", ["a barrier waits for threads", "threads 5 to 5: in named_barrier"]),
    ("fewer_bytes", ["a barrier waits for threads", "and lacks 0 of 1 arrivals"]),
    ("only_own_block", ["a barrier waits for threads", "in phase 0 and lacks 128 of 256 arrivals"]),
    ("no_such_block", ["there is no such block in the cluster"]),
    ("odd_size", ["a bulk copy has a multiple of 16 bytes"]),
    ("static", ["the pointer is not to dynamic shared memory"]),
]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("kernel", "words"), ERRORS)
def test_errors(barriers: Path, kernel: str, words: list[str], order: str) -> None:
    done = run(barriers, kernel, order)
    assert done.returncode == 1
    for expected in [*words, "run_barriers.cpp:"]:
        assert expected in done.stderr


@pytest.mark.parametrize(("kernel", "words"), ERRORS)
def test_errors_under_the_race_detector(barriers_for_races: Path, kernel: str, words: list[str]) -> None:
    done = run(barriers_for_races, kernel)
    assert done.returncode == 1
    for expected in words:
        assert expected in done.stderr
    assert "data race" not in done.stderr


def test_access_beyond_dynamic_shared_memory(builder: Builder, barriers: Path) -> None:
    if not builder.works(MEMORY):
        pytest.skip("g++ has no AddressSanitizer here")
    done = run(barriers, "beyond")
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr


@pytest.mark.parametrize("kernel", ["no_wait_for_full", "no_barrier"])
def test_races_are_found(barriers_for_races: Path, kernel: str) -> None:
    done = run(barriers_for_races, kernel)
    assert done.returncode != 0
    assert "data race" in done.stderr


@pytest.mark.parametrize("kernel", RESULTS)
def test_no_races_are_found_in_correct_kernels(barriers_for_races: Path, kernel: str) -> None:
    assert values(barriers_for_races, kernel) == RESULTS[kernel]
