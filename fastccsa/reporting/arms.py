"""Arms of an experiment: their finished runs, and the groups of domains over which they are averaged.

An arm is a folder ``<arm>`` with runs ``seed<k>``: one way of training, with several seeds. Arms are compared on equal
seeds and test images. Groups: "home" is the primary domain; "abroad" the other training domains that show several
classes; "unseen" the domains that were left out; then the means over the domains that show several classes, and over
all. A domain with a single class says nothing about telling classes apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fastccsa.evaluation import Outputs
from fastccsa.runs.folder import OUTPUTS_FILE, SCORES_FILE
from fastccsa.runs.images import DEFAULT_PRIMARY
from fastccsa.runs.records import Run, read_runs
from fastccsa.system.errors import InputError

GROUPS = {
    "home": "home",
    "abroad": "seen abroad",
    "unseen": "unseen",
    "several": "mean, several classes",
    "all": "mean, all domains",
}


@dataclass(frozen=True, eq=False)
class Result:
    """A finished run of an arm, and its model's outputs on the test images."""

    run: Run
    outputs: Outputs

    def same_images(self, other: Result) -> bool:
        """Whether both were tested on the same images, as far as their outputs tell."""
        return self.outputs.domain_names == other.outputs.domain_names and all(
            np.array_equal(getattr(self.outputs, name), getattr(other.outputs, name))
            for name in ("rows", "targets", "domains")
        )

    @property
    def _primary(self) -> int:
        names, config = self.outputs.domain_names, self.run.config
        return names.index(config.primary or (DEFAULT_PRIMARY if DEFAULT_PRIMARY in names else names[0]))

    @property
    def trained(self) -> tuple[int, ...]:
        """The domains that the model was trained on, as positions in the outputs' names."""
        if self.run.config.n_sec == 0:
            return (self._primary,)
        names = self.outputs.domain_names
        return tuple(number for number, name in enumerate(names) if name not in self.run.config.exclude)

    @cached_property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """The domains of each of `GROUPS`, as positions in the outputs' names."""
        names, config, primary = self.outputs.domain_names, self.run.config, self._primary
        tested = np.unique(self.outputs.domains).tolist()
        several = [d for d in tested if len(np.unique(self.outputs.targets[self.outputs.domains == d])) > 1]
        unseen = [d for d in tested if names[d] in config.exclude]
        abroad = [d for d in several if d != primary and d not in unseen]
        groups = {"home": [primary], "abroad": abroad, "unseen": unseen, "several": several, "all": tested}
        return {name: tuple(domains) for name, domains in groups.items()}


Arms = dict[str, dict[int, Result]]


def read_arms(folder: Path, first: Iterable[str] = ()) -> Arms:
    """Read the finished runs ``<folder>/<arm>/seed<k>`` by arm and seed, the arms of ``first`` first.

    Raises:
        InputError: there is none, a file is broken, or the runs do not test the same images or, with the same seed,
            leave out different domains.
    """
    rank = {name: position for position, name in enumerate(first)}
    found = [path.parent for path in folder.glob(f"*/seed*/{SCORES_FILE}")]
    found.sort(key=lambda path: (rank.get(path.parent.name, len(rank)), path.parent.name, len(path.name), path.name))
    arms: Arms = {}
    for path in found:
        result = _read(path)
        arms.setdefault(path.parent.name, {})[result.run.config.seed] = result
    if not arms:
        raise InputError(f"no finished run in {folder}: its runs are in <arm>/seed<k>")
    _check_arms(arms, str(folder))
    return arms


def read_each(paths: Sequence[Path]) -> Arms:
    """Read one arm from each path: a run folder, or a folder with runs ``seed<k>``.

    An arm has the name of its folder, with those above it as far as they differ. Single runs of different seeds count
    as runs of one seed, so that they can be compared.

    Raises:
        InputError: a path has no finished run, a file is broken, two paths are the same, or the runs do not test the
            same images.
    """
    arms: Arms = {}
    for name, path in zip(_names(paths), paths, strict=True):
        folders = [run.folder for run in read_runs(path).runs]
        inside = {folder.resolve().parent for folder in folders}
        if len(inside) > 1:
            raise InputError(f"{path} holds several arms: give each by itself, such as {folders[0].parent}")
        results = [_read(folder) for folder in folders]
        arms[name] = {result.run.config.seed: result for result in results}
        if len(arms[name]) < len(results):
            raise InputError(f"{path} holds several runs of one seed, which are no arm: give each by itself")
    if all(len(by_seed) == 1 for by_seed in arms.values()):
        arms = {name: dict(enumerate(by_seed.values())) for name, by_seed in arms.items()}
    _check_arms(arms, "these runs")
    return arms


def _names(paths: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that differ from each other."""
    parts = [path.resolve().parts for path in paths]
    for path, own in zip(paths, parts, strict=True):
        if parts.count(own) > 1:
            raise InputError(f"{path} is given twice")
    length = 1
    while len({own[-length:] for own in parts}) < len(parts):
        length += 1
    return ["/".join(own[-length:]) for own in parts]


def _read(path: Path) -> Result:
    (run,) = read_runs(path).runs
    file = path / OUTPUTS_FILE
    if not file.exists():
        raise InputError(f"{path} has no {OUTPUTS_FILE}, from which intervals are made: repeat its training command")
    return Result(run, Outputs.read(file))


def _check_arms(arms: Arms, where: str) -> None:
    first = next(iter(next(iter(arms.values())).values()))
    for result in (result for by_seed in arms.values() for result in by_seed.values()):
        _check_same_test(first, result)
    for seed in {seed for by_seed in arms.values() for seed in by_seed}:
        excluded = {by_seed[seed].run.config.exclude for by_seed in arms.values() if seed in by_seed}
        if len(excluded) > 1:
            raise InputError(f"{where}: the arms of seed {seed} leave out different domains: {sorted(excluded)}")


def _check_same_test(one: Result, other: Result) -> None:
    if one.run.config.manifest_sha256 != other.run.config.manifest_sha256:
        raise InputError(
            f"the manifest changed between {one.run.folder} and {other.run.folder}, so that they may test different "
            "images: report them separately"
        )
    if not one.same_images(other):
        raise InputError(f"{one.run.folder} and {other.run.folder} test different images: report them separately")
