"""The table of the paper: a row for each run, a column for each domain, macro-average recall in percent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastccsa.data.taxonomy import DOMAINS
from fastccsa.errors import InputError
from fastccsa.reporting.runs import Run, RunFolder

SETTINGS = ("n_sec", "backbone", "cls", "align")
SETTINGS_KEY = "n_sec: images per class and secondary domain, a = all; cls, align: w weighted, u unweighted, - none."
NO_SCORE = "-"  # the run's test images have none of this domain


@dataclass(frozen=True)
class Cell:
    """A recall as it is printed, and whether it is the best of its column."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class ScoreTable:
    """Runs by domains.

    Attributes:
        settings: heads of the columns that say how a run was made, after the run's name.
        domains: keys of the domains, in the paper's order; then comes ``avg``.
        rows: name, settings, and one cell for each domain and ``avg``.
        split: which images were scored.
        remarks: what the reader must know to compare the rows.
    """

    settings: tuple[str, ...]
    domains: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...], tuple[Cell, ...]], ...]
    split: str
    remarks: tuple[str, ...]

    @property
    def header(self) -> tuple[str, ...]:
        """All column heads."""
        return ("run", *self.settings, *self.domains, "avg")

    @property
    def caption(self) -> str:
        """What the numbers are."""
        return f"Macro-average recall in %, {self.split} images"


def score_table(folder: RunFolder) -> ScoreTable:
    """The table of ``folder``'s runs; each ``avg`` is the mean over the domains that its run was scored on.

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
    recalls = [[*(_recall(run, domain) for domain in domains), run.scores.average] for run in runs]
    best = [_best(column) for column in zip(*recalls, strict=True)]
    rows = []
    for run, values in zip(runs, recalls, strict=True):
        left_out = [domain in run.config.exclude for domain in domains] + [False]
        cells = tuple(map(_cell, values, left_out, best))
        rows.append((run.name, _settings(run), cells))
    return ScoreTable(
        settings=SETTINGS,
        domains=domains,
        rows=tuple(rows),
        split=splits[0],
        remarks=tuple(_remarks(folder, domains)),
    )


def domain_order(runs: Sequence[Run]) -> tuple[str, ...]:
    """Every domain that a run was scored on: the paper's in its order, then others as they come."""
    found = list(dict.fromkeys(domain for run in runs for domain in run.scores.domains))
    known = [domain for domain in DOMAINS if domain in found]
    return (*known, *(domain for domain in found if domain not in DOMAINS))


def to_text(table: ScoreTable) -> str:
    """The table as plain lines of text."""
    console = _console()
    with console.capture() as capture:
        _print(table, console)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def print_text(table: ScoreTable) -> None:
    """Print the table on stdout, the best of each column in bold where stdout is a terminal."""
    _print(table, _console())


def to_markdown(table: ScoreTable) -> str:
    """The table as GitHub's Markdown, the best of each column in bold."""
    left = 1 + len(table.settings)
    lines = [
        _markdown_row(table.header),
        _markdown_row([":--"] * left + ["--:"] * (len(table.header) - left)),
    ]
    for name, settings, cells in table.rows:
        numbers = [f"**{_escape(cell.text)}**" if cell.best else _escape(cell.text) for cell in cells]
        lines.append(_markdown_row([_escape(name), *map(_escape, settings), *numbers]))
    remarks = [f"{table.caption}.", SETTINGS_KEY, *table.remarks]
    return "\n".join([*lines, "", " ".join(map(_escape, remarks))]) + "\n"


def _recall(run: Run, domain: str) -> float | None:
    scores = run.scores.domains.get(domain)
    return None if scores is None else scores.macro_recall


def _best(recalls: Sequence[float | None]) -> float | None:
    """The highest recall; None where there is nothing to be better than."""
    return max((recall for recall in recalls if recall is not None), default=None) if len(recalls) > 1 else None


def _cell(recall: float | None, is_left_out: bool, best: float | None) -> Cell:
    if recall is None:
        return Cell(NO_SCORE)
    return Cell(f"{'*' if is_left_out else ''}{100 * recall:.1f}", best=recall == best)


def _settings(run: Run) -> tuple[str, ...]:
    config = run.config
    n_sec = "a" if config.n_sec == "all" else str(config.n_sec)
    backbone = config.backbone.replace("resnet", "RN")
    return n_sec, backbone, config.classification_weight, config.alignment


def _remarks(folder: RunFolder, domains: tuple[str, ...]) -> list[str]:
    runs = folder.runs
    remarks = []
    if any(run.config.exclude for run in runs):
        remarks.append("*: the domain was left out of training and of model selection.")
    partial = [run.name for run in runs if len(run.scores.domains) < len(domains)]
    if partial:
        remarks.append(f"avg is over fewer domains in {', '.join(partial)}: do not compare it with the others'.")
    if len({run.config.manifest_sha256 for run in runs}) > 1:
        remarks.append("The runs were made from different manifests: their test images may differ.")
    if folder.unfinished:
        remarks.append(f"Not finished: {', '.join(folder.unfinished)}.")
    return remarks


def _console() -> Console:
    # Wide, because numbers must not be cut short: a narrow terminal or a pipe gets whole lines all the same.
    return Console(width=1000, highlight=False, soft_wrap=True)


def _print(table: ScoreTable, console: Console) -> None:
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    left = 1 + len(table.settings)
    for position, head in enumerate(table.header):
        grid.add_column(Text(head), justify="left" if position < left else "right", no_wrap=True)
    for name, settings, cells in table.rows:
        numbers = [Text(cell.text, style="bold" if cell.best else "") for cell in cells]
        grid.add_row(Text(name), *map(Text, settings), *numbers)
    console.print(Text(table.caption))
    console.print(grid)
    for remark in (SETTINGS_KEY, *table.remarks):
        console.print(Text(remark, style="dim"))


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    for sign in "\\|*_`<":
        text = text.replace(sign, f"\\{sign}")
    return text
