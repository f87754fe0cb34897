"""The benchmarks under pytest: their options, their cells and contestants as tests, and their results.

A ``bench_*.py`` has a class ``Benchmark``; each of its cells with each of its contestants is a test. The fixture
``rows`` measures all contestants of a cell in turns, and ``report`` passes each one's times to pytest-benchmark, whose
statistics, groups, JSON and comparisons work on them as on times that it measured.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import pytest_benchmark
import torch

from benchmarks.commands import BENCHMARKS, flags_of, options_of
from benchmarks.harness.results import OURS, Results, Row
from benchmarks.harness.table import table
from fastccsa.system import machine
from fastccsa.system.errors import InputError


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("benchmarks", "benchmarks of fastccsa: see `python -m benchmarks NAME --help`")
    for flag, is_switch in flags_of(*BENCHMARKS).items():
        group.addoption(flag, dest=f"benchmarks{flag}", default=None, action="store_true" if is_switch else "append")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RECORDER] = Recorder()


def _name_of(module: Any) -> str:
    return module.__name__.rpartition("bench_")[2].replace("_", "-")  # type: ignore[no-any-return]


def _make(config: pytest.Config, module: Any) -> Any:
    """Make the benchmark of a module with the options of this run."""
    name = _name_of(module)
    return module.Benchmark(options_of(name, {flag: config.getoption(f"benchmarks{flag}") for flag in flags_of(name)}))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cell" not in metafunc.fixturenames:
        return
    try:
        benchmark = _make(metafunc.config, metafunc.module)
        cells, names = benchmark.cells(), benchmark.names()
    except (click.UsageError, InputError) as error:
        pytest.exit(str(error), returncode=2)
    metafunc.parametrize("cell", cells, ids=[_as_id(cell.title) for cell in cells], scope="module")
    metafunc.parametrize("contestant", names, ids=[_as_id(name) for name in names])


def _as_id(title: str) -> str:
    return title.replace(",", "").replace(" ", "-")


@pytest.fixture(scope="module")
def measuring(request: pytest.FixtureRequest, recorder: Recorder) -> Iterator[Any]:
    """The benchmark of this module; afterwards the number of torch's threads is restored."""
    threads = torch.get_num_threads()
    benchmark = _make(request.config, request.module)
    benchmark.begin()
    recorder.begin(_name_of(request.module), benchmark)
    yield benchmark
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest, measuring: Any, cell: Any, recorder: Recorder) -> Iterator[dict[str, Row]]:
    """The rows of a cell by contestant; contestants whose tests are deselected do not run."""
    params = [
        item.callspec.params
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module and hasattr(item, "callspec")
    ]
    chosen = [each["contestant"] for each in params if each["cell"] == cell]
    yield {row.contestant: row for row in measuring.measure(cell, chosen)}
    recorder.write()


@pytest.fixture
def report(benchmark: Any, rows: dict[str, Row], cell: Any, contestant: str, recorder: Recorder) -> Callable[[], None]:
    """A function that passes the contestant's row to pytest-benchmark and to the file of results."""
    return lambda: recorder.add(benchmark, cell, rows.get(contestant))


@pytest.fixture(scope="session")
def recorder(request: pytest.FixtureRequest) -> Recorder:
    """The results of this run."""
    return request.config.stash[RECORDER]


class Replay:
    """A clock for pytest-benchmark that replays times which were measured before."""

    seconds: Iterator[float]
    now = 0.0

    def __call__(self) -> float:
        return self.now

    def reset(self) -> None:
        self.now = 0.0

    def run(self) -> None:
        self.now = next(self.seconds)


REPLAY = Replay()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.benchmark(timer=REPLAY))


class Recorder:
    """The results of this run, the file they are written to, and further texts of the summary."""

    def __init__(self) -> None:
        program = Path(sys.argv[0])
        started = ["python", "-m", program.parent.name] if program.name == "__main__.py" else [program.name]
        about = machine.describe(torch.device("cpu")) | {"versions": machine.versions()}
        commit, command = {"id": machine.commit()}, shlex.join([*started, *sys.argv[1:]])
        self.results = Results(about, commit, machine.now(), pytest_benchmark.__version__, command)
        self.out: Path | None = None
        self.texts: list[str] = []

    def begin(self, name: str, benchmark: Any) -> None:
        """Record the settings of a benchmark, and the file for its results."""
        settings = json.loads(json.dumps(vars(benchmark.options), default=str))
        self.results.settings[name] = settings | {"threads": torch.get_num_threads()}
        self.out = self.out or benchmark.options.out
        if benchmark.options.machine:
            self.results.machine_info["name"] = benchmark.options.machine
        if benchmark.device.type == "cuda":
            self.results.machine_info["gpu"] = machine.describe(benchmark.device)["gpu"]

    def add(self, benchmark: Any, cell: Any, row: Row | None) -> None:
        """Record a row; if it was not measured, skip the test, or fail it if fastccsa itself failed."""
        if row is None:
            pytest.skip("not part of this cell")
        params = {**vars(cell), "contestant": row.contestant}
        if not row.seconds:
            about = {"group": cell.title, "name": row.contestant, "fullname": benchmark.fullname, "params": params}
            self.results.untimed.append(about | {"extra_info": row.as_info()})
            if row.not_measured:
                ours_failed = row.kind == OURS and row.not_measured.startswith("failed")
                (pytest.fail if ours_failed else pytest.skip)(row.not_measured)
            return
        REPLAY.seconds = iter(row.seconds)
        benchmark.group, benchmark.name = cell.title, row.contestant
        benchmark.params, benchmark.extra_info = params, row.as_info()
        benchmark.pedantic(REPLAY.run, setup=REPLAY.reset, rounds=len(row.seconds))
        if benchmark.stats is not None:  # pytest-benchmark is off under pytest-xdist
            self.results.benchmarks.append(benchmark.stats.as_dict())

    def write(self) -> None:
        """Write the results so far."""
        if self.out is not None:
            self.results.write(self.out)


RECORDER = pytest.StashKey[Recorder]()


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info.update(config.stash[RECORDER].results.machine_info)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    recorder = config.stash[RECORDER]
    if recorder.results.benchmarks or recorder.results.untimed:
        recorder.write()
        terminalreporter.write("\n".join(["", *recorder.texts, table(recorder.results), ""]))
