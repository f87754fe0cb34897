"""The table of the paper: one row per experiment or run, one column per domain, macro-average recall in %."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastccsa.collections.taxonomy import DOMAINS, TABLE1
from fastccsa.experiments.rows import AVERAGE, EXPERIMENTS
from fastccsa.reporting.groups import group_runs
from fastccsa.reporting.scale_line import scale_lines
from fastccsa.reporting.sections.scores import ScoreCell, ScoreRow, missing_runs, score_rows
from fastccsa.runs.records import Run, RunFolder
from fastccsa.system.errors import InputError
from fastccsa.system.text import markdown, printable

SETTINGS = ("n_sec", "backbone", "cls", "align")
SETTINGS_KEY = "n_sec: images per class and secondary domain, a = all; cls, align: w weighted, u unweighted, - none."
NO_SCORE = "-"  # the run has no test images of this domain


@dataclass(frozen=True)
class Cell:
    """A printed recall, and whether it is the best of its column."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class ScoreTable:
    """Runs by domains; experiments as means over their seeds, with the paper's numbers and the differences below.

    Attributes:
        settings: heads of the columns that describe a run, after its name.
        domains: keys of the domains, in the paper's order; ``avg`` comes after them.
        rows: name, settings, and one cell for each domain and ``avg``.
        split: name of the split that was scored.
        remarks: facts that readers need to compare the rows.
        scale: how the experiments differ from the paper's.
        missing: experiments, seeds and runs that the table lacks.
        scores: the scores as numbers, one row per experiment or other run.
    """

    settings: tuple[str, ...]
    domains: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...], tuple[Cell, ...]], ...]
    split: str
    remarks: tuple[str, ...]
    scale: tuple[str, ...]
    missing: tuple[str, ...]
    scores: tuple[ScoreRow, ...]

    @property
    def header(self) -> tuple[str, ...]:
        """All column heads."""
        return ("run", *self.settings, *self.domains, AVERAGE)

    @property
    def caption(self) -> str:
        """The meaning of the numbers."""
        return f"Macro-average recall in %, {self.split} images"

    @property
    def notes(self) -> tuple[str, ...]:
        """All lines below the table."""
        return (SETTINGS_KEY, *self.remarks, *self.scale, *self.missing)


def score_table(folder: RunFolder) -> ScoreTable:
    """Make the table of ``folder``'s runs; each ``avg`` is the mean over the domains on which its run was scored.

    Raises:
        InputError: the runs were scored on different splits.
    """
    runs = folder.runs
    splits = sorted({run.scores.split for run in runs})
    if len(splits) > 1:
        raise InputError(
            f"the runs in {folder.path} are scored on different splits ({', '.join(splits)}): "
            "report them from separate folders"
        )
    domains = domain_order(runs)
    groups = group_runs(runs)
    scores = score_rows(groups, domains)
    with_seeds = any(group.is_experiment or len(group.runs) > 1 for group in groups)
    return ScoreTable(
        settings=(*SETTINGS, "seeds") if with_seeds else SETTINGS,
        domains=domains,
        rows=tuple(line for row in scores for line in _lines(row, with_seeds)),
        split=splits[0],
        remarks=tuple(_remarks(folder, domains, scores)),
        scale=tuple(scale_lines(runs)),
        missing=tuple(missing_runs(folder, groups)),
        scores=tuple(scores),
    )


def domain_order(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return every domain on which a run was scored: the paper's in its order, then others as they occur."""
    found = list(dict.fromkeys(domain for run in runs for domain in run.scores.domains))
    known = [domain for domain in DOMAINS if domain in found]
    return (*known, *(domain for domain in found if domain not in DOMAINS))


def to_text(table: ScoreTable) -> str:
    """Return the table as plain text."""
    console = _console()
    with console.capture() as capture:
        _print(table, console)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def print_text(table: ScoreTable) -> None:
    """Print the table on stdout, with the best value of each column in bold if stdout is a terminal."""
    _print(table, _console())


def to_markdown(table: ScoreTable) -> str:
    """Return the table as GitHub Markdown, with the best value of each column in bold."""
    left = 1 + len(table.settings)
    lines = [
        _markdown_row(["run", *table.settings, *map(markdown, table.domains), AVERAGE]),
        _markdown_row([":--"] * left + ["--:"] * (len(table.header) - left)),
    ]
    for name, settings, cells in table.rows:
        numbers = [f"**{markdown(cell.text)}**" if cell.best else markdown(cell.text) for cell in cells]
        lines.append(_markdown_row([markdown(name), *map(markdown, settings), *numbers]))
    return "\n".join([*lines, "", " ".join(map(markdown, [f"{table.caption}.", *table.notes]))]) + "\n"


def _lines(row: ScoreRow, with_seeds: bool) -> Iterator[tuple[str, tuple[str, ...], tuple[Cell, ...]]]:
    """Yield the printed row and, if the paper has numbers for it, the paper's row and the difference."""
    seeds = (str(len(row.group.runs)),) if with_seeds else ()
    yield row.group.name, (*row.settings, *seeds), tuple(map(_cell, row.cells))
    if any(cell.paper is not None for cell in row.cells):
        blank = ("",) * (len(row.settings) + len(seeds))
        yield f"{row.group.name} paper", blank, tuple(_paper_cell(cell) for cell in row.cells)
        yield f"{row.group.name} difference", blank, tuple(_difference_cell(cell) for cell in row.cells)


def _cell(score: ScoreCell) -> Cell:
    if score.here is None:
        return Cell(NO_SCORE)
    return Cell(f"{'*' if score.is_left_out else ''}{score.here.text()}", best=score.is_best)


def _paper_cell(score: ScoreCell) -> Cell:
    return Cell(NO_SCORE if score.paper is None else f"{'*' if score.is_left_out else ''}{score.paper:.1f}")


def _difference_cell(score: ScoreCell) -> Cell:
    return Cell(NO_SCORE if score.difference is None else f"{score.difference:+.1f}")


def _remarks(folder: RunFolder, domains: tuple[str, ...], scores: Sequence[ScoreRow]) -> list[str]:
    runs = folder.runs
    remarks = []
    cells = [cell.here for row in scores for cell in row.cells if cell.here is not None]
    if any(cell.interval for cell in cells):
        remarks.append(
            "[]: 95 % interval over lesions or patients of the test images and, with three seeds or more, over seeds."
        )
    if any(cell.interval is None and cell.error is not None for cell in cells):
        remarks.append("±: standard error of the mean over seeds.")
    if any(run.config.exclude for run in runs):
        remarks.append("*: the domain was excluded from training and model selection.")
    pruned = {row.group.name: EXPERIMENTS[row.group.name] for row in scores if row.group.is_experiment}
    pruned = {name: row for name, row in pruned.items() if row.threshold is not None}
    if pruned:
        remarks.append(f"Pruned: {', '.join(f'{name} is K at {row.threshold:g}' for name, row in pruned.items())}.")
    partial = [run.name for run in runs if len(run.scores.domains) < len(domains)]
    if partial:
        remarks.append(f"avg is over fewer domains in {', '.join(partial)}: it is not comparable with the others.")
    absent = [domain for domain in TABLE1 if domain not in domains]
    if absent and any(row.group.is_experiment for row in scores):
        remarks.append(f"avg is over the domains of this table, also in the paper's rows: without {', '.join(absent)}.")
    if len({run.config.manifest_sha256 for run in runs}) > 1:
        remarks.append("The runs were made from different manifests: their test images may differ.")
    return remarks


def _console() -> Console:
    # Wide, so that numbers are not truncated on a narrow terminal or in a pipe.
    return Console(width=1000, highlight=False, soft_wrap=True)


def _print(table: ScoreTable, console: Console) -> None:
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    left = 1 + len(table.settings)
    for position, head in enumerate(table.header):
        grid.add_column(Text(printable(head)), justify="left" if position < left else "right", no_wrap=True)
    for name, settings, cells in table.rows:
        numbers = [Text(cell.text, style="bold" if cell.best else "") for cell in cells]
        grid.add_row(*(Text(printable(text)) for text in (name, *settings)), *numbers)
    console.print(Text(printable(table.caption)))
    console.print(grid)
    for note in table.notes:
        console.print(Text(printable(note), style="dim"))


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
