"""With a limit set, large gradients on the CPU reuse the memory of earlier ones, and hold the right values."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import fastccsa
from fastccsa import functional, reference
from fastccsa.ops.allocator import cpu_cache

PAIRS, WIDTH = 4096, 640  # 10 MiB per gradient in float32: large enough to be recycled
recycles = pytest.mark.skipif(
    torch.__version__ < (2, 11), reason="torch 2.10 cannot use memory of another library: nothing is recycled"
)


@pytest.fixture(autouse=True)
def cache() -> Iterator[None]:
    """Keep up to 1 GiB within a test, and nothing from one test to the next."""
    previous = fastccsa.set_cpu_cache_limit(1 << 30)
    yield
    fastccsa.set_cpu_cache_limit(0)
    fastccsa.set_cpu_cache_limit(previous)


def problem(seed: int, dtype: torch.dtype = torch.float32, width: int = WIDTH) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    features = [torch.randn(PAIRS, width, generator=generator).to(dtype).requires_grad_() for _ in range(2)]
    return features, [torch.randint(3, (PAIRS,), generator=generator) for _ in range(2)]


def gradients(features: list[Tensor], labels: list[Tensor], module=functional) -> tuple[Tensor, ...]:
    return torch.autograd.grad(module.contrastive_alignment(*features, *labels, reduction="sum"), features)


def expected(features: list[Tensor], labels: list[Tensor]) -> tuple[Tensor, ...]:
    return gradients([x.detach().double().requires_grad_() for x in features], labels, reference)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("ragged", [0, 3])  # rows of whole vectors, and others
def test_gradients_are_right_in_recycled_memory(dtype: torch.dtype, ragged: int) -> None:
    for seed in range(2):
        features, labels = problem(seed, dtype, WIDTH * 4 // dtype.itemsize + ragged)
        found = gradients(features, labels)
        for value, want in zip(found, expected(features, labels), strict=True):
            # Other tests check exact values; this one checks that they belong to this problem, not to the last one.
            torch.testing.assert_close(value.double(), want, rtol=8 * torch.finfo(dtype).eps, atol=1e-6)
        del found, value


@recycles
def test_memory_is_used_again() -> None:
    features, labels = problem(0)
    addresses = [{gradient.data_ptr() for gradient in gradients(features, labels)} for _ in range(3)]
    assert addresses[0] == addresses[1] == addresses[2]


def test_gradients_over_all_pairs_are_right_in_recycled_memory() -> None:
    """Centred rows and gradients are recycled within one call, and from one problem to the next."""
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        features = [torch.randn(300, 7200, generator=generator).requires_grad_() for _ in range(2)]
        labels = [torch.randint(3, (300,), generator=generator) for _ in range(2)]
        loss = functional.contrastive_alignment(*features, *labels, margin=150.0, pairs="all")
        exact = [x.detach().double().requires_grad_() for x in features]
        distance = torch.cdist(*exact, compute_mode="donot_use_mm_for_euclid_dist")
        true = torch.where(labels[0][:, None] == labels[1], distance.square(), (150 - distance).clamp(min=0).square())
        found, want = torch.autograd.grad(loss, features), torch.autograd.grad(true.mean(), exact)
        for mine, gradient in zip(found, want, strict=True):
            torch.testing.assert_close(mine.double(), gradient, rtol=1e-5, atol=1e-6 * gradient.abs().max().item())


@recycles
def test_memory_that_a_view_still_uses_is_not_recycled() -> None:
    features, labels = problem(0)
    first = gradients(features, labels)
    copies = [gradient.clone() for gradient in first]
    view = first[0][7:]
    addresses = {gradient.data_ptr() for gradient in first}
    del first
    second = gradients(*problem(1))
    # The view keeps its memory; the other gradient's memory is free.
    assert len(addresses & {gradient.data_ptr() for gradient in second}) == 1
    assert torch.equal(view, copies[0][7:])


def torch_allocations(call: Callable[[], object]) -> list[int]:
    """Return the sizes of the large blocks that a call allocates with torch; freed blocks are negative."""
    with torch.profiler.profile(profile_memory=True) as profile:
        call()
    sizes = [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    return [size for size in sizes if abs(size) >= 8 << 20]


@recycles
def test_recycled_memory_does_not_come_from_torch() -> None:
    """With a limit, the gradients are not among torch's allocations; the next test relies on this."""
    features, labels = problem(0)
    assert torch_allocations(lambda: gradients(features, labels)) == []


def in_new_process(code: str) -> list[str]:
    """Run code that knows this module as `this`, and return the lines that it prints."""
    command = [sys.executable, "-c", f"import test_recycled_memory as this, fastccsa\n{code}"]
    ended = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=300, check=True)
    return ended.stdout.splitlines()


def test_by_default_nothing_is_kept() -> None:
    """In a new process, torch allocates the memory of the gradients, and all of it is freed."""
    printed = in_new_process(
        "features, labels = this.problem(0)\n"
        "print(sorted(this.torch_allocations(lambda: this.gradients(features, labels))))\n"
        "print(fastccsa.set_cpu_cache_limit(0))"
    )
    size = PAIRS * WIDTH * 4
    assert printed == [str([-size, -size, size, size]), "0"]


def asks_for_large_pages(tensor: Tensor) -> bool:
    """Whether the system was asked for pages of 2 MiB in the middle of a large tensor."""
    address, inside = tensor.data_ptr() + tensor.nbytes // 2, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if mapping := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(mapping[1], 16) <= address < int(mapping[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return "hg" in line.split()
    raise AssertionError("no mapping holds the tensor")


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="no large pages on this system")
@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_large_results_ask_for_large_pages(limit: int) -> None:
    """In a new process: malloc may return memory that an earlier result asked large pages for."""
    printed = in_new_process(
        f"fastccsa.set_cpu_cache_limit({limit})\n"
        "print(this.asks_for_large_pages(this.torch.empty(32 << 20, dtype=this.torch.uint8)))\n"
        "print(*map(this.asks_for_large_pages, this.gradients(*this.problem(0))))"
    )
    assert printed == ["False", "True True"]


def test_without_a_limit_nothing_is_kept() -> None:
    assert fastccsa.set_cpu_cache_limit(0) == 1 << 30
    features, labels = problem(0)
    for gradient, want in zip(gradients(features, labels), expected(features, labels), strict=True):
        torch.testing.assert_close(gradient.double(), want, rtol=1e-6, atol=1e-6)
    assert fastccsa.set_cpu_cache_limit(5) == 0


@recycles
def test_the_oldest_are_freed_first() -> None:
    fastccsa.set_cpu_cache_limit(25 << 20)  # two gradients of 10 MiB, not three
    features, labels = problem(0)
    held = [gradients(features, labels) for _ in range(2)]
    latest = {gradient.data_ptr() for gradient in held[1]}
    held.pop(0)
    held.pop(0)
    assert {gradient.data_ptr() for gradient in gradients(features, labels)} == latest


def test_freed_by_other_threads() -> None:
    features, labels = problem(0)
    want = gradients(features, labels)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(4):
                found = gradients(features, labels)
                assert all(map(torch.equal, found, want))
                thread = threading.Thread(target=found.__class__, args=(found,))
                del found
                thread.start()
                thread.join()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def limit() -> int:
    """Return the limit; reading it frees the kept memory."""
    found = fastccsa.set_cpu_cache_limit(0)
    fastccsa.set_cpu_cache_limit(found)
    return found


@pytest.mark.parametrize(("before", "within"), [(0, 7 << 20), (5 << 20, 5 << 20)])
def test_for_the_time_of_a_block(before: int, within: int) -> None:
    """A training run uses this; a limit that is already set stays."""
    fastccsa.set_cpu_cache_limit(before)
    with cpu_cache(7 << 20):
        assert limit() == within
    assert limit() == before
    with pytest.raises(ZeroDivisionError), cpu_cache(7 << 20):
        raise ZeroDivisionError
    assert limit() == before


def test_negative_limit() -> None:
    with pytest.raises(fastccsa.InputError, match="size is -1"):
        fastccsa.set_cpu_cache_limit(-1)


@recycles
def test_children_that_are_forked_while_another_thread_uses_the_pool_do_not_wait_for_it() -> None:
    """The lock of the pool is copied as it is, and the child does not have the thread that holds it."""
    printed = in_new_process(
        """
import ctypes, os, threading, time
import torch

torch.set_num_threads(1)
fastccsa.set_cpu_cache_limit(1)  # each buffer that is given back is freed at once, while the lock is held
no_large_pages = 41  # PR_SET_THP_DISABLE: freeing many small pages takes a good part of each turn of the thread
ctypes.CDLL(None).prctl(no_large_pages, 1, 0, 0, 0)
shape = torch.empty(()).expand(1 << 14, 1 << 10)
ended = threading.Event()

def work():
    while not ended.is_set():
        # Both operations run without Python's own lock.
        torch.ops.fastccsa.large_empty_like(shape).fill_(1).set_()

thread = threading.Thread(target=work)
thread.start()
time.sleep(0.5)
hangs = 0
for _ in range(40):
    child = os.fork()
    if child == 0:
        fastccsa.set_cpu_cache_limit(0)
        os._exit(0)
    late = time.monotonic() + 20
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > late:
            hangs += 1
            os.kill(child, 9)
            os.waitpid(child, 0)
            break
        time.sleep(0.002)
    if hangs:
        break
ended.set()
thread.join()
print(hangs)
"""
    )
    assert printed == ["0"]


@recycles
def test_kept_memory_is_freed_when_memory_runs_out_and_on_request() -> None:
    """Under a limit on the address space, which MADV_FREE does not help against."""
    printed = in_new_process(
        """
import re, resource
import torch
from pathlib import Path

def used():
    return 1024 * int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def large(size):
    return torch.ops.fastccsa.large_empty_like(torch.empty(()).expand(size >> 12, 1 << 10))

MiB = 1 << 20
fastccsa.set_cpu_cache_limit(1 << 40)
before = used()
kept = large(400 * MiB)
del kept
print(used() - before >= 400 * MiB)
resource.setrlimit(resource.RLIMIT_AS, (before + 700 * MiB, resource.RLIM_INFINITY))
larger = large(600 * MiB)
print(larger.numel() == 600 * MiB // 4)
del larger
print(used() - before >= 600 * MiB)
fastccsa.set_cpu_cache_limit(0)
# The 600 MiB are gone. Other memory of the process, such as the stacks of threads, may have grown meanwhile.
print(used() - before < 300 * MiB)
"""
    )
    assert printed == ["True"] * 4
