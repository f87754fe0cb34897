"""The kernels that sort and average classes for the loss over all pairs on CUDA, in the emulator under sanitizers."""

from __future__ import annotations

import os
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from .cases import DTYPES, FAULTS, LAYOUTS, ORDERS, SANITIZER_OPTIONS, Schedule, accumulator, as_it_is, encode_view
from .programs import Builder

NO_FAULT = (None, 0, 0)
NAN = float("nan")
# The least chunk of rows that a warp adds up, and the rows of a block that sorts.
CHUNK, BLOCK = 8, 256


@dataclass(frozen=True)
class Options:
    """Limits that decide how the work is done; -1 or 0 keeps the usual one."""

    few_rows: int = -1
    counted_classes: int = -1
    chunk_rows: int = 0


ONE_LAUNCH, THREE_LAUNCHES, SORTED = Options(), Options(few_rows=0), Options(counted_classes=0)
EACH_WAY = pytest.mark.parametrize(
    "options", [ONE_LAUNCH, THREE_LAUNCHES, SORTED], ids=["one launch", "three launches", "device sort"]
)


@dataclass(frozen=True)
class Side:
    order: Tensor
    label: Tensor
    offset: Tensor
    mean: Tensor
    spread: Tensor  # [classes]
    factor: Tensor


@dataclass(frozen=True)
class Outcome:
    fault: tuple[str | None, int, int]
    launches: int
    sorts: int
    scratch_bytes: int
    classes: int
    side: tuple[Side, Side]
    place: Tensor | None  # where the mean of each class is stored
    alignment: Tensor
    centre: Tensor
    weight: Tensor
    poison: Tensor
    content: bytes  # all results

    def mean(self, side: int, c: int) -> Tensor:
        return self.side[side].mean[c if self.place is None else int(self.place[c])].double()


class Program:
    """Prepares the loss in the emulator."""

    def __init__(self, path: Path, schedule: Schedule = Schedule()) -> None:  # noqa: B008 - frozen
        self._path, self._schedule = path, schedule

    def prepare(
        self, z: list[Tensor], y: list[Tensor], weight: Tensor | None = None, *, labels: int = 0, centre: bool = True,
        options: Options = ONE_LAUNCH,
    ) -> Outcome:  # fmt: skip
        dtype, acc = z[0].dtype, accumulator(z[0].dtype)
        labels = labels if weight is None else len(weight)
        chosen = (options.few_rows, options.counted_classes, options.chunk_rows)
        schedule = (ORDERS.index(self._schedule.order), self._schedule.seed, self._schedule.processors)
        width = z[0].shape[1]
        head = struct.pack("<12q", *schedule, DTYPES.index(dtype), len(z[0]), len(z[1]), width, labels, centre, *chosen)
        request = head + b"".join(encode_view(x) for x in (*z, *y, weight))
        environment = os.environ | SANITIZER_OPTIONS
        done = subprocess.run([self._path], input=request, capture_output=True, env=environment)
        if done.returncode != 0:
            pytest.fail(done.stderr.decode()[:6000], pytrace=False)
        blocks = list(_blocks(done.stdout))
        if blocks[0]:
            raise RuntimeError(blocks[0].decode())
        fault, row, value = struct.unpack("<3q", blocks[1])
        launches, sorts, scratch_bytes = struct.unpack("<3q", blocks[2])
        classes, placed = struct.unpack("<2q", blocks[3])
        mean = torch.float32 if dtype.itemsize < 4 else torch.float64
        sides = [_side(blocks[at : at + 7], classes, width, mean) for at in (4, 11)]
        alignment, centre_of_all, weights, poison = blocks[18:]
        return Outcome(
            (FAULTS[fault], row, value),
            launches,
            sorts,
            scratch_bytes,
            classes,
            (sides[0], sides[1]),
            sides[len(z[1]) < len(z[0])].offset if placed else None,
            _tensor(alignment, torch.float64),
            _tensor(centre_of_all, acc),
            _tensor(weights, acc).view(*([labels, labels] if weights else [0])),
            _tensor(poison, acc),
            done.stdout,
        )


def _blocks(data: bytes):
    at = 0
    while at < len(data):
        (size,) = struct.unpack_from("<q", data, at)
        yield data[at + 8 : at + 8 + size]
        at += 8 + size


def _tensor(content: bytes, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0, dtype=dtype)


def _side(blocks: list[bytes], classes: int, width: int, mean: torch.dtype) -> Side:
    order, label, offset = (_tensor(blocks[k], torch.int64) for k in (0, 1, 3))
    assert _tensor(blocks[2], torch.int32).tolist() == label.tolist()
    means = _tensor(blocks[4], mean).view(-1, width) if width else torch.empty(classes, 0)
    spread = _tensor(blocks[5], torch.float64).view(classes, -1 if width else 0).sum(1)
    return Side(order, label, offset, means, spread, _tensor(blocks[6], torch.float64))


@pytest.fixture(scope="module")
def program(builder: Builder) -> Program:
    return Program(builder.emulated("run_prepare_kernels", builder.memory_or_plain()))


def features(rows: tuple[int, int], width: int, dtype: torch.dtype = torch.float32, at: float = 2.0) -> list[Tensor]:
    random = torch.Generator().manual_seed(sum(rows) + width)
    return [(torch.randn(n, width, generator=random, dtype=torch.float64) + at).to(dtype) for n in rows]


def labels_of(rows: tuple[int, int], classes: int, seed: int = 0) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randint(classes, (n,), generator=random) for n in rows]


def assert_sorted(found: Outcome, y: list[Tensor], numbered: bool = False) -> None:
    """Rows are in the order of a stable sort. `numbered`: class numbers replace labels, in the same order."""
    for side, labels in zip(found.side, y, strict=True):
        values, order = labels.sort(stable=True)
        assert torch.equal(side.order, order)
        if not numbered:
            assert torch.equal(side.label, values)
        borders = torch.searchsorted(side.label, torch.arange(found.classes + 1))
        assert torch.equal(side.offset, borders)
    if numbered:
        pairs = {
            (int(number), int(label))
            for side, labels in zip(found.side, y, strict=True)
            for number, label in zip(side.label, labels.sort().values, strict=True)
        }
        numbers, labels = (sorted(column) for column in zip(*pairs, strict=True))
        assert sorted(pairs) == list(zip(numbers, labels, strict=True))
        assert len(set(numbers)) == len(set(labels)) == len(pairs)
        assert 0 <= numbers[0] <= numbers[-1] < found.classes


def assert_means(found: Outcome, z: list[Tensor], weight: Tensor | None = None) -> None:
    """Compare means, spreads, coefficients and alignment with their definitions in float64.

    Around the first row of a batch of up to 8 rows, sums of squares of 16-bit features have at most 64 terms and
    relative roundings of at most 90 units, and the sum is at most 9 times the spread.
    """
    short = z[0].dtype.itemsize < 4
    tolerance = 90 * 9 * 2.0**-24 if short else 1e-12
    for c in range(found.classes):
        rows = [
            x.double()[side.order[side.offset[c] : side.offset[c + 1]]] for x, side in zip(z, found.side, strict=True)
        ]
        if min(map(len, rows)) == 0:
            assert found.alignment[c] == found.side[0].factor[c] == found.side[1].factor[c] == 0
            continue
        # Around a row, even rows that differ in their last bit have an exact mean.
        origin = rows[0][0]
        rows = [x - origin for x in rows]
        true = [x.mean(0) for x in rows]
        spread = [((x - m) ** 2).sum().item() for x, m in zip(rows, true, strict=True)]
        rounding_of = []
        for k in range(2):
            mean = origin + true[k]
            error = (found.mean(k, c) - mean).abs()
            assert (error <= (2.0**-24 if short else 2.0**-52) * mean.abs() + 1e-14 * rows[k].abs().amax(0)).all()
            # Parts of a class are added by their means, which are rounded.
            size = 2.0**-53 * mean.norm().item() * len(rows[k]) ** 0.5
            rounding_of.append(2 * size * spread[k] ** 0.5 + size**2)
            assert found.side[k].spread[c].item() == pytest.approx(spread[k], rel=tolerance, abs=rounding_of[k])
        own = 1.0 if weight is None else weight[c, c].item()
        squares = sum(((a - rows[1]) ** 2).sum().item() for a in rows[0])
        n1, n2 = map(len, rows)
        rounding = n2 * rounding_of[0] + n1 * rounding_of[1]
        # |A - B|^2 has the rounding of both means.
        unit = 2.0**-24 if short else 2.0**-52
        moved = 2 * unit * (origin + true[0]).abs()
        rounding += n1 * n2 * (2 * moved * (true[0] - true[1]).abs() + moved**2).sum().item()
        assert found.alignment[c].item() == pytest.approx(own * squares, rel=tolerance, abs=own * rounding)
        assert found.side[0].factor[c].item() == pytest.approx(2 * own * n2, rel=1e-7)
        assert found.side[1].factor[c].item() == pytest.approx(2 * own * n1, rel=1e-7)


# ---- sorting ----


@EACH_WAY
@pytest.mark.parametrize("classes", [1, 3, 300])
@pytest.mark.parametrize(
    "rows", [(1, 1), (BLOCK - 1, BLOCK + 1), (BLOCK, 2 * BLOCK), (3, 31 * BLOCK + 5)], ids=lambda rows: f"{rows}"
)
def test_the_sort_is_stable(program: Program, rows: tuple[int, int], classes: int, options: Options) -> None:
    """Around the borders of blocks, with one class, and with classes that do not occur."""
    y = labels_of(rows, classes)
    found = program.prepare(features(rows, 1), y, labels=classes, centre=False, options=options)
    assert_sorted(found, y, numbered=found.classes != classes)
    assert found.fault == NO_FAULT
    assert found.poison.tolist() == [0]


@EACH_WAY
def test_as_many_classes_as_are_counted(program: Program, options: Options) -> None:
    """Labels are strided, and weights too."""
    y = [torch.stack([labels, -labels - 1], 1)[:, 0] for labels in labels_of((700, 600), 1024)]
    assert y[0].stride() == (2,)
    weight = torch.rand(1024, 1024).t()
    z = features((700, 600), 3)
    found = program.prepare(z, y, weight, options=options)
    assert_sorted(found, y)
    assert torch.equal(found.weight, weight)
    assert found.fault == NO_FAULT


def test_more_classes_are_sorted_by_the_device(program: Program) -> None:
    y, z = labels_of((200, 150), 1100), features((200, 150), 3)
    weight = torch.rand(1100, 1100)
    found = program.prepare(z, y, weight)
    assert found.sorts == 2
    assert found.classes == 1100
    assert_sorted(found, y)
    assert torch.equal(found.weight, weight)
    assert_means(found, z, weight)


@pytest.mark.parametrize("rows", [(1, 1), (40, 300), (300, 40)], ids=str)
def test_labels_may_be_any_numbers(program: Program, rows: tuple[int, int]) -> None:
    """Negative, huge, strided, and without an equal label on the other side."""
    y = [(labels * 10**17 - 10**18)[::2] for labels in labels_of((2 * rows[0], 2 * rows[1]), 25)]
    z = features(rows, 9)
    found = program.prepare(z, y)
    assert_sorted(found, y, numbered=True)
    assert_means(found, z)
    assert found.poison.numel() == 0


def test_without_weights_classes_are_at_most_the_rows(program: Program) -> None:
    y, z = [labels * 10**6 for labels in labels_of((50, 60), 7)], features((50, 60), 9)
    found = program.prepare(z, y, labels=10**9)
    assert found.classes == 110
    assert_sorted(found, y, numbered=True)
    assert_means(found, z)
    assert found.fault == NO_FAULT


# ---- bad values ----

BROKEN = [
    ("target1", (299, -3), ("target1", 299, -3)),
    ("target1", (2, 3), ("target1", 2, 3)),
    ("target2", (256, 1 << 20), ("target2", 256, 1 << 20)),
    ("pair_weight", ((2, 1), NAN), ("pair_weight", 0, 2 * 3 + 1)),
    ("pair_weight", ((1, 1), -0.5), ("pair_weight", 0, 1 * 3 + 1)),
]


@EACH_WAY
@pytest.mark.parametrize(("argument", "change", "fault"), BROKEN)
def test_a_bad_value_is_reported_and_replaced(
    program: Program, argument: str, change: tuple, fault: tuple, options: Options
) -> None:
    rows = (300, 281)
    arguments = {"target1": labels_of(rows, 3)[0], "target2": labels_of(rows, 3)[1], "pair_weight": torch.rand(3, 3)}
    arguments[argument][change[0]] = change[1]
    y = [arguments["target1"], arguments["target2"]]
    found = program.prepare(features(rows, 2), y, arguments["pair_weight"], options=options)
    assert found.fault == fault
    assert found.poison.isnan().all()
    assert_sorted(found, [labels.where((labels >= 0) & (labels < 3), 0) for labels in y])


def test_too_many_rows(program: Program) -> None:
    z = [torch.empty(1, 0), torch.empty(1, 0).expand(1 << 31, 0)]
    y = [torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64).expand(1 << 31)]
    message = "features2 has 2147483648 rows; on CUDA, the loss over all pairs takes at most 2147483647 per side"
    with pytest.raises(RuntimeError, match=message):
        program.prepare(z, y, labels=3)


# ---- means ----


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_means_of_every_layout(program: Program, dtype: torch.dtype, layout) -> None:
    """Several chunks of columns, whole and ragged."""
    for width in (32, 264, 265):
        z, y = features((37, 26), width, dtype), labels_of((37, 26), 3)
        found = program.prepare([layout(x) for x in z], y, labels=3)
        assert_means(found, z)
        torch.testing.assert_close(found.centre, torch.cat(z).double().mean(0).to(found.centre.dtype))


@pytest.mark.parametrize("chunk_rows", [0, 16, 40, 72])
@pytest.mark.parametrize("classes", [1, 2, 5, 60, 400])
@pytest.mark.parametrize(
    "rows",
    [(1, 1), (CHUNK - 1, CHUNK), (CHUNK + 1, 8 * CHUNK - 1), (8 * CHUNK, 8 * CHUNK + 1), (3, 307), (150, 2)],
    ids=lambda rows: f"{rows}",
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_classes_across_the_borders_of_chunks(
    program: Program, dtype: torch.dtype, rows: tuple[int, int], classes: int, chunk_rows: int
) -> None:
    """Classes within a chunk, across one border and across several; those of one side have no means."""
    z, y = features(rows, 5, dtype), labels_of(rows, classes)
    weight = torch.rand(classes, classes, dtype=accumulator(dtype))
    for centre in (False, True):
        found = program.prepare(z, y, weight, centre=centre, options=Options(chunk_rows=chunk_rows))
        assert_sorted(found, y)
        assert_means(found, z, weight)
        if centre:
            torch.testing.assert_close(found.centre, torch.cat(z).double().mean(0).to(found.centre.dtype))
        else:
            assert found.centre.numel() == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_far_from_the_origin(program: Program, dtype: torch.dtype) -> None:
    """The spread does not cancel: rows of a class are equal up to a few units in the last place."""
    rows, unit = (90, 70), torch.finfo(dtype).eps
    random = torch.Generator().manual_seed(0)
    z = [(1 + unit * torch.randint(4, (n, 40), generator=random).double()).to(dtype) for n in rows]
    y = labels_of(rows, 2)
    assert_means(program.prepare(z, y, labels=2, centre=False), z)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_equal_rows_have_no_spread(program: Program, dtype: torch.dtype) -> None:
    z = [torch.full((n, 70), 0.1, dtype=dtype) for n in (90, 20)]
    found = program.prepare(z, labels_of((90, 20), 2), labels=2)
    assert found.side[0].spread.tolist() == found.side[1].spread.tolist() == [0, 0]
    assert found.alignment.tolist() == [0, 0]


def test_an_outlier_comes_first(program: Program) -> None:
    """Sums around the first row of a class would lose all bits of the spread of the others."""
    z = features((64, 9), 20, torch.float64)
    z[0][0] = 1e7
    y = [torch.zeros(len(x), dtype=torch.int64) for x in z]
    y[0][0] = 1
    assert_means(program.prepare(z, y, labels=2, options=Options(chunk_rows=64)), z)
    y[0][0] = 0
    found = program.prepare(z, y, labels=2, options=Options(chunk_rows=64))
    spread = ((z[0] - z[0].mean(0)) ** 2).sum().item()
    assert found.side[0].spread[0].item() == pytest.approx(spread, rel=1e-13)


def test_a_column_with_nan_or_infinity_has_the_centre_zero(program: Program) -> None:
    z = features((20, 30), 6)
    z[0][3, 1], z[1][4, 2] = NAN, float("inf")
    found = program.prepare(z, labels_of((20, 30), 2), labels=2)
    assert found.centre[1:3].tolist() == [0, 0]
    assert found.centre.isfinite().all()
    assert not found.alignment.isfinite().all()


def test_features_without_columns(program: Program) -> None:
    y = labels_of((20, 30), 2)
    found = program.prepare(features((20, 30), 0), y, labels=2)
    assert_sorted(found, y)
    assert found.alignment.tolist() == [0, 0]


# ---- cost ----


@pytest.mark.parametrize(
    ("options", "labels", "sorting", "sorts"),
    [(ONE_LAUNCH, 3, 1, 0), (THREE_LAUNCHES, 3, 3, 0), (SORTED, 3, 3, 2), (ONE_LAUNCH, 0, 3, 2)],
    ids=["one launch", "three launches", "device sort", "any labels"],
)
def test_launches(program: Program, options: Options, labels: int, sorting: int, sorts: int) -> None:
    """After sorting: sums, parts of classes, and alignment."""
    found = program.prepare(features((300, 40), 3), labels_of((300, 40), 3), labels=labels, options=options)
    assert (found.launches, found.sorts) == (sorting + 3, sorts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_memory_for_labels_without_a_bound(program: Program, dtype: torch.dtype) -> None:
    """Means of at most the rows of the smaller side, on both sides, and parts of one class per chunk and border."""
    rows, width = (40, 3000), 64
    z, y = features(rows, width, dtype), [torch.arange(n) for n in rows]
    found = program.prepare(z, y, centre=False)
    mean = 4 if dtype.itemsize < 4 else 8
    chunks = sum(-(-n // CHUNK) for n in rows)
    by_row_or_class = 20 * sum(rows) * 8
    assert found.scratch_bytes <= 2 * 40 * width * mean + 2 * chunks * (width + 1) * 8 + by_row_or_class
    assert_means(found, z)


# ---- the order of execution ----


@pytest.mark.parametrize("options", [ONE_LAUNCH, Options(few_rows=0, chunk_rows=40)], ids=["one launch", "three"])
def test_the_order_of_execution_changes_no_bit(builder: Builder, program: Program, options: Options) -> None:
    path = builder.emulated("run_prepare_kernels", builder.memory_or_plain())
    z, y = features((500, 290), 70), labels_of((500, 290), 7)
    expected = program.prepare(z, y, torch.rand(7, 7).fill_(0.5), options=options)
    for schedule in (Schedule("reverse"), Schedule("random", 1), Schedule("random", 2, processors=3)):
        found = Program(path, schedule).prepare(z, y, torch.rand(7, 7).fill_(0.5), options=options)
        assert found.content == expected.content


@pytest.mark.parametrize("layout", [as_it_is, LAYOUTS[-1]], ids=lambda layout: layout.__name__)
@EACH_WAY
def test_no_races(builder: Builder, options: Options, layout) -> None:
    program = Program(builder.emulated("run_prepare_kernels", builder.races()), Schedule(processors=2))
    z, y = [layout(x) for x in features((300, 270), 8)], labels_of((300, 270), 5)
    found = program.prepare(z, y, torch.rand(5, 5), options=options)
    assert found.alignment.isfinite().all()
