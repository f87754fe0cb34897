"""How ranks share an epoch: disjoint and complete, the same for any world size, and without state."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastccsa.sampling import ImageSampler, PairSampler, _sampler
from fastccsa.system.errors import InputError

seeds = st.integers(0, 2**64 - 1)
epochs = st.integers(0, 2**32 - 1)


def pair_sampler(size: int, **options) -> PairSampler:
    rows = np.arange(size)
    return PairSampler(rows % 3, rows % 2, **options)


def image_sampler(size: int, **options) -> ImageSampler:
    return ImageSampler(np.arange(size) % 3, **options)


def by_position(make, size: int, epoch: int, world_size: int, **options) -> dict[int, tuple[int, ...]]:
    """Collect what all ranks draw, by position in the epoch; fail if two ranks share a position."""
    drawn: dict[int, tuple[int, ...]] = {}
    lengths = set()
    for rank in range(world_size):
        sampler = make(size, rank=rank, world_size=world_size, **options)
        lengths.add(len(sampler))
        for step in range(len(sampler)):
            columns = np.atleast_2d(sampler.batch(epoch, step))
            for position, images in zip(sampler.positions(epoch, step), columns.T, strict=True):
                assert position not in drawn
                drawn[int(position)] = tuple(images)
    assert len(lengths) == 1
    return drawn


@pytest.mark.parametrize("make", [pair_sampler, image_sampler])
@given(
    size=st.integers(3, 120),
    batch_size=st.integers(1, 9),
    world_size=st.integers(1, 9),
    seed=seeds,
    epoch=epochs,
)
@settings(deadline=None, max_examples=60)
def test_ranks_cover_the_same_epoch_for_any_world_size(make, size, batch_size, world_size, seed, epoch):
    alone = by_position(make, size, epoch, 1, batch_size=size, seed=seed)
    shared = by_position(make, size, epoch, world_size, batch_size=batch_size, seed=seed)
    assert sorted(shared) == list(range(size))
    assert shared == alone
    assert sorted(images[0] for images in shared.values()) == list(range(size))


@given(size=st.integers(3, 120), batch_size=st.integers(1, 9), world_size=st.integers(1, 9))
@settings(deadline=None)
def test_all_batches_but_the_last_are_full(size, batch_size, world_size):
    samplers = [pair_sampler(size, batch_size=batch_size, rank=r, world_size=world_size) for r in range(world_size)]
    sizes = np.array([[len(s.positions(0, step)) for s in samplers] for step in range(len(samplers[0]))])
    assert (sizes[:-1] == batch_size).all()
    assert sizes[-1].max() - sizes[-1].min() <= 1
    assert sizes.sum() == size


@given(size=st.integers(3, 120), batch_size=st.integers(1, 9), world_size=st.integers(1, 9))
@settings(deadline=None)
def test_drop_last_keeps_the_full_steps(size, batch_size, world_size):
    full = size // (batch_size * world_size)
    options = {"batch_size": batch_size, "world_size": world_size, "drop_last": True}
    if full == 0:
        with pytest.raises(InputError, match="drop_last leaves no step"):
            pair_sampler(size, **options)
        return
    assert len(pair_sampler(size, **options)) == full
    drawn = by_position(pair_sampler, size, 0, world_size, batch_size=batch_size, drop_last=True)
    assert sorted(drawn) == list(range(full * batch_size * world_size))


def test_steps_are_ordered_windows_and_ranks_chunks_of_them():
    first, second = (pair_sampler(23, batch_size=4, rank=rank, world_size=2) for rank in range(2))
    assert len(first) == 3
    assert [list(s.positions(5, 1)) for s in (first, second)] == [[8, 9, 10, 11], [12, 13, 14, 15]]
    assert [list(s.positions(5, 2)) for s in (first, second)] == [[16, 17, 18], [19, 20, 21, 22]]


@pytest.mark.parametrize("make", [pair_sampler, image_sampler])
def test_a_batch_depends_only_on_its_arguments(make):
    sampler = make(50, batch_size=8, seed=3)
    forward = [sampler.batch(2, step) for step in range(len(sampler))]
    again = make(50, batch_size=8, seed=3)
    again.set_epoch(9)
    list(again)
    backward = [again.batch(2, step) for step in reversed(range(len(again)))][::-1]
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda step: sampler.batch(2, step), range(len(sampler))))
    for other in (backward, threaded):
        for mine, theirs in zip(forward, other, strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("make", [pair_sampler, image_sampler])
def test_seeds_and_epochs_differ(make):
    options = {"batch_size": 500}
    base = make(500, **options).batch(0, 0)
    for other in (make(500, **options).batch(1, 0), make(500, seed=1, **options).batch(0, 0)):
        assert (np.asarray(base) != np.asarray(other)).mean() > 0.9


@pytest.mark.parametrize("make", [pair_sampler, image_sampler])
def test_iteration_yields_the_current_epoch(make):
    sampler = make(50, batch_size=8)
    for epoch in (0, 4):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler) == 7
        for step, batch in enumerate(batches):
            np.testing.assert_array_equal(batch, sampler.batch(epoch, step))


@pytest.mark.parametrize("make", [pair_sampler, image_sampler])
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda sampler: pickle.loads(pickle.dumps(sampler))])
def test_copies_draw_the_same(make, clone):
    sampler = make(50, batch_size=8, seed=5, rank=1, world_size=2)
    copied = clone(sampler)
    np.testing.assert_array_equal(copied.batch(3, 1), sampler.batch(3, 1))
    np.testing.assert_array_equal(copied.probabilities()[-1], sampler.probabilities()[-1])


def test_the_last_seed_epoch_and_step_are_reached():
    sampler = pair_sampler(10, batch_size=3, seed=2**64 - 1)
    first, second = sampler.batch(2**32 - 1, 3)
    assert first.dtype == second.dtype == sampler.positions(0, 0).dtype == np.int64
    assert len(first) == len(second) == 1


@pytest.mark.parametrize("make", [pair_sampler, image_sampler])
@pytest.mark.parametrize(
    ("epoch", "step", "message"),
    [
        (-1, 0, "epoch must be an integer from 0"),
        (2**32, 0, "epoch"),
        (0.5, 0, "epoch"),
        (0, -1, "step must be an integer from 0 to 6"),
        (0, 7, "step must be an integer from 0 to 6"),
        (0, "1", "step"),
    ],
)
def test_epochs_and_steps_out_of_range_are_rejected(make, epoch, step, message):
    sampler = make(50, batch_size=8)
    with pytest.raises(InputError, match=message):
        sampler.batch(epoch, step)
    with pytest.raises(InputError, match=message):
        sampler.positions(epoch, step)


@pytest.mark.parametrize("make", [pair_sampler, image_sampler])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer from 1"),
        ({"batch_size": 2.0}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"world_size": 0}, "world_size"),
        ({"rank": 2, "world_size": 2}, "rank must be an integer from 0 to 1, got 2"),
        ({"rank": -1}, "rank"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"seed": None}, "seed must be an integer, got None"),
        ({"num_classes": 0}, "num_classes"),
    ],
)
def test_arguments_out_of_range_are_rejected(make, options, message):
    with pytest.raises(InputError, match=message):
        make(50, **options)


def test_positions_address_the_same_random_numbers_for_any_world_size():
    """The image pipeline relies on this: augmentation drawn by position ignores how ranks share the step."""
    alone = pair_sampler(24, batch_size=24)
    whole = _sampler.uniforms(0, 1, 3, alone.positions(3, 0), 4)
    shares = [pair_sampler(24, batch_size=4, rank=rank, world_size=3) for rank in range(3)]
    parts = [_sampler.uniforms(0, 1, 3, s.positions(3, step), 4) for step in range(2) for s in shares]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
