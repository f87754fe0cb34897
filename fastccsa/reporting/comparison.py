"""Arms compared on the same test images: metrics by group of domains and paired differences, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from fastccsa.evaluation.intervals import Interval, holm
from fastccsa.evaluation.metrics import Metric
from fastccsa.evaluation.resampling import REPLICATES
from fastccsa.evaluation.samples import Samples
from fastccsa.reporting.arms import GROUPS, Arms
from fastccsa.runs.tested_images import Clusters, ImageRows, Subgroups, read_tuning
from fastccsa.system.errors import InputError

GAP = "gap"

Cells = dict[str, Interval | None]


def left_out(domain: str) -> str:
    """Return the name of the group of the seeds that leave a domain out, on that domain."""
    return f"{domain} unseen"


class Comparison:
    """Metrics of the arms with intervals, and their paired differences.

    Args:
        arms: results by arm and seed, on the same test images.
        metrics: the metrics.
        positive: class that is told from the rest; None if there is none.
        clusters: the clusters of the test images; None reads those of the manifest's groups.
        by_domain: add each domain to the groups of domains; and, if only some seeds leave it out, also their part.
        subgroups: show these instead of groups of domains.
        replicates: number of bootstrap samples.

    Attributes:
        groups: names of the groups of domains, by key.
        remark: how samples of the test images are drawn.
    """

    def __init__(
        self,
        arms: Arms,
        metrics: Sequence[Metric],
        *,
        positive: str | None = None,
        clusters: Clusters | None = None,
        by_domain: bool = False,
        subgroups: Subgroups | None = None,
        replicates: int = REPLICATES,
    ) -> None:
        self._arms = arms
        results = [result for by_seed in arms.values() for result in by_seed.values()]
        keys = [(arm, seed) for arm, by_seed in arms.items() for seed in by_seed]
        self._number = {key: number for number, key in enumerate(keys)}
        self.domains_of = {seed: result.groups for by_seed in arms.values() for seed, result in by_seed.items()}
        some = results[0].outputs
        self._names = some.domain_names
        self._subgroups = subgroups
        self.groups = dict(GROUPS)
        if subgroups is not None:
            self._names = subgroups.names
            self.groups = {**subgroups.titles, GAP: "gap"}
            parts = {name: (number,) for number, name in enumerate(subgroups.names)}
            self.domains_of = {seed: dict(parts) for seed in self.domains_of}
        elif by_domain:
            tested = np.unique(some.domains).tolist()
            self.groups |= {some.domain_names[domain]: some.domain_names[domain] for domain in tested}
            for groups in self.domains_of.values():
                groups.update({some.domain_names[domain]: (domain,) for domain in tested})
            self._add_left_out(tested)
        if clusters is None:
            clusters = Clusters.of(ImageRows.read(results[0].run.config, some))
        self._samples = Samples(
            [result.outputs for result in results],
            [each for metric in metrics for each in (metric, *metric.beside)],
            positive=positive,
            tunings=[read_tuning(result.run.folder, result.run.config, positive) for result in results],
            clusters=clusters.of_image,
            parts=None if subgroups is None else subgroups.of_image,
            trained=[result.trained for result in results],
            replicates=replicates,
        )
        self.remark = f"{replicates} bootstrap samples of {self._samples.clusters} {clusters.remark}"

    def _add_left_out(self, tested: Sequence[int]) -> None:
        """Add a group for each domain that some seeds leave out and others do not: the seeds that do."""
        for domain in tested:
            seeds = {seed for seed, groups in self.domains_of.items() if domain in groups["unseen"]}
            if not seeds or seeds == self.domains_of.keys():
                continue
            name = left_out(self._names[domain])
            self.groups[name] = name
            for seed, groups in self.domains_of.items():
                groups[name] = (domain,) if seed in seeds else ()

    @property
    def groups_by_seed(self) -> dict[int, dict[str, list[str]]]:
        """Names of the domains of each group, by seed."""
        return {
            seed: {group: [self._names[domain] for domain in domains] for group, domains in groups.items()}
            for seed, groups in sorted(self.domains_of.items())
        }

    @property
    def groups_text(self) -> str:
        """Which domains each of `GROUPS` has, with the seeds where they differ by seed; or what the subgroups are."""
        if self._subgroups is not None:
            return self._subgroups.remark
        texts = []
        for group, name in GROUPS.items():
            seeds: dict[str, list[int]] = {}
            for seed, groups in self.groups_by_seed.items():
                seeds.setdefault(", ".join(groups[group]) or "none", []).append(seed)
            each = [
                names if len(seeds) == 1 else f"{names} (seed {', '.join(map(str, found))})"
                for names, found in seeds.items()
            ]
            if each != ["none"]:
                texts.append(f"{name}: {'; '.join(each)}.")
        return " ".join(text[0].upper() + text[1:] for text in texts)

    def check_common_seeds(self, arm: str, other: str) -> None:
        """Check that two arms can be paired.

        Raises:
            InputError: they have no seed in common.
        """
        own, others = self._arms[arm], self._arms[other]
        if not own.keys() & others.keys():
            raise InputError(
                f"{arm} has the seeds {', '.join(map(str, own))} and {other} {', '.join(map(str, others))}: only equal "
                "seeds can be paired"
            )

    def row(self, metric: str, arm: str, minus: str | None = None) -> Cells:
        """Return the intervals by group, over the seeds that have domains in it; None where the metric is undefined."""
        seeds = [seed for seed in self._arms[arm] if minus is None or seed in self._arms[minus]]
        cells = {group: self._cell(metric, group, seeds, arm, minus) for group in self.groups if group != GAP}
        if GAP in self.groups:
            cells[GAP] = None if minus else self._gap(metric, arm, cells)
        return cells

    def _gap(self, metric: str, arm: str, cells: Cells) -> Interval | None:
        """Return the difference between the subgroups with the highest and the lowest value."""
        known = sorted((cell.estimate, group) for group, cell in cells.items() if cell is not None)
        if len(known) < 2:
            return None
        numbers = [self._number[arm, seed] for seed in self._arms[arm]]
        high, low = (
            [self.domains_of[seed][group] for seed in self._arms[arm]] for group in (known[-1][1], known[0][1])
        )
        return self._samples.interval(metric, numbers, high, numbers, low)

    def _cell(self, metric: str, group: str, seeds: Iterable[int], arm: str, minus: str | None) -> Interval | None:
        chosen = {seed: domains for seed in seeds if (domains := self.domains_of[seed][group])}
        if not chosen:
            return None
        own, others = ([self._number[one, seed] for seed in chosen] for one in (arm, minus or arm))
        return self._samples.interval(metric, own, list(chosen.values()), others if minus else None)


def corrected(rows: Sequence[Cells]) -> list[dict[str, float]]:
    """Return Holm's corrected p-values of all differences in ``rows``, by row and group."""
    places = [(number, group) for number, row in enumerate(rows) for group, cell in row.items() if cell is not None]
    values = [cell.p for row in rows for cell in row.values() if cell is not None and cell.p is not None]
    found: list[dict[str, float]] = [{} for _ in rows]
    for (number, group), value in zip(places, holm(values), strict=True):
        found[number][group] = value
    return found
