"""The emulator runs CUDA kernels as a GPU would, and finds their faults."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from .cases import ORDERS, SANITIZER_OPTIONS
from .programs import MEMORY, Builder

BLOCKS, THREADS = 3, 64


@pytest.fixture(scope="module")
def checks(builder: Builder) -> Path:
    return builder.emulated("run_emulator_checks", builder.memory_or_plain())


@pytest.fixture(scope="module")
def checks_for_races(builder: Builder) -> Path:
    return builder.emulated("run_emulator_checks", builder.races())


@pytest.fixture
def sanitized(builder: Builder) -> None:
    if not builder.works(MEMORY):
        pytest.skip("g++ has no AddressSanitizer here")


def run(program: Path, kernel: str, order: str = "forward", processors: int = 1) -> subprocess.CompletedProcess[str]:
    command = [program, kernel, str(ORDERS.index(order)), str(processors)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **SANITIZER_OPTIONS})


def values(program: Path, kernel: str, order: str = "forward", processors: int = 1) -> list[int]:
    done = run(program, kernel, order, processors)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


def test_coordinates(checks: Path) -> None:
    block = [100 * z + 10 * y + x for z in range(8) for y in range(4) for x in range(2)]
    assert values(checks, "coordinates") == BLOCKS * block


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("processors", [1, 2, 4])
def test_barrier_and_shared_memory(checks: Path, order: str, processors: int) -> None:
    assert values(checks, "rotate", order, processors) == BLOCKS * [(t + 1) % THREADS for t in range(THREADS)]


def test_shuffle_within_halves_of_a_warp_and_across(checks: Path) -> None:
    assert values(checks, "shuffle_halves") == BLOCKS * [(t ^ 16) ^ 5 for t in range(THREADS)]


def test_vote_and_broadcast(checks: Path) -> None:
    assert values(checks, "vote_and_broadcast") == BLOCKS * (32 * [100 * 7 + 7] + 32 * [100 * 3 + 35])


def test_votes(checks: Path) -> None:
    # 3 divides 11 of the numbers from 0 to 31, and 11 from 32 to 63.
    assert values(checks, "votes") == BLOCKS * (32 * [1 + 4 + 8 + 100 * 11] + 32 * [1 + 8 + 100 * 11])


def test_shuffle_up_and_down(checks: Path) -> None:
    lanes = [(lane if lane < 3 else lane - 3, lane + 5 if lane < 27 else lane) for lane in range(32)]
    expected = [100 * (first + up) + first + down for first in (0, 32) for up, down in lanes]
    assert values(checks, "shuffle_up_and_down") == BLOCKS * expected


@pytest.mark.parametrize("order", ORDERS)
def test_barrier_of_a_warp(checks: Path, order: str) -> None:
    block = [t // 32 * 32 + (t + 1) % 32 for t in range(THREADS)]
    assert values(checks, "rotate_in_a_warp", order) == BLOCKS * block


def test_bits_vectors_and_maxima(checks: Path) -> None:
    # Thread t reads 63 - t: max(63 - t, 40) = 63 - min(t, 23).
    assert values(checks, "bits_vectors_and_maxima") == BLOCKS * THREADS * [15]


@pytest.mark.parametrize("processors", [1, 3])
def test_shared_memory_is_poisoned_before_each_block(checks: Path, processors: int) -> None:
    assert values(checks, "shared_memory_at_first", processors=processors)[:BLOCKS] == BLOCKS * [-1]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("processors", [1, 2, 3])
def test_the_last_block_sees_all_others(checks: Path, order: str, processors: int) -> None:
    assert values(checks, "add_up", order, processors)[: BLOCKS + 1] == [1, 2, 3, 6]


@pytest.mark.parametrize("kernel", ["rotate_without_barrier", "rotate_twice", "rotate_in_a_warp_without_barrier"])
def test_results_depend_on_the_order_if_a_barrier_is_missing(checks: Path, kernel: str) -> None:
    assert values(checks, kernel, "forward") != values(checks, kernel, "reverse")


STRANDED = [
    ("one_thread_leaves_before_the_barrier", ["threads 0 to 39: in __syncthreads", "threads 40 to 40: returned"]),
    ("two_barriers", ["threads 0 to 31: in __syncthreads", "threads 32 to 63: in __syncthreads"]),
    ("one_lane_does_not_shuffle", ["threads 0 to 6: in __shfl_xor_sync", "threads 7 to 7: returned"]),
    ("lane_outside_its_mask", [": in __shfl_xor_sync", "with mask 0xffff"]),
    ("partner_outside_the_mask", ["threads 0 to 15: in __shfl_xor_sync", "with mask 0xffff"]),
]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("kernel", "whereabouts"), STRANDED)
def test_threads_that_wait_forever_are_an_error(checks: Path, kernel: str, whereabouts: list[str], order: str) -> None:
    done = run(checks, kernel, order)
    assert done.returncode == 1
    for words in [*whereabouts, "run_emulator_checks.cpp:"]:
        assert words in done.stderr


SANITIZED = [
    ("write_beyond_the_end", "heap-buffer-overflow"),
    ("shared_index_beyond_the_end", "index 64 out of bounds"),
    ("misaligned_load", "misaligned address"),
]


@pytest.mark.usefixtures("sanitized")
@pytest.mark.parametrize(("kernel", "finding"), SANITIZED)
def test_sanitizers_find_faults_of_kernels(checks: Path, kernel: str, finding: str) -> None:
    done = run(checks, kernel)
    assert done.returncode != 0
    assert finding in done.stderr
    assert "run_emulator_checks.cpp:" in done.stderr


RACES = [
    "rotate_without_barrier",
    "rotate_in_a_warp_without_barrier",
    "rotate_twice",
    "add_up_without_first_fence",
    "add_up_without_barrier",
    "add_up_without_second_fence",
]


@pytest.mark.parametrize("kernel", RACES)
def test_races_are_found(checks_for_races: Path, kernel: str) -> None:
    done = run(checks_for_races, kernel, processors=2)
    assert done.returncode != 0
    assert "data race" in done.stderr


CORRECT = [
    "coordinates",
    "rotate",
    "rotate_in_a_warp",
    "shuffle_halves",
    "votes",
    "bits_vectors_and_maxima",
    "shared_memory_at_first",
    "add_up",
]


@pytest.mark.parametrize("kernel", CORRECT)
def test_no_races_are_found_in_correct_kernels(checks_for_races: Path, kernel: str) -> None:
    values(checks_for_races, kernel, processors=2)
