"""The paper's Table 2: the definition of each of its 22 experiments, and the paper's results.

In rows A to E the paper's two weighting columns are swapped; the definitions follow its text, which uses no
alignment in these rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fastccsa.collections.taxonomy import TABLE1
from fastccsa.runs.config import Alignment, ClassificationWeight

AVERAGE = "avg"


def _recalls(*percent: float) -> dict[str, float]:
    """Return the recalls of the seven domains in the paper's order, and their mean as printed."""
    return dict(zip((*TABLE1, AVERAGE), percent, strict=True))


@dataclass(frozen=True)
class Experiment:
    """A row of Table 2, or an experiment beside it.

    Attributes:
        letter: its name, A to V in the table.
        paper: the paper's macro-average recall in %, by domain key and ``"avg"``.
        n_sec: training images per class and secondary domain.
        backbone: a torchvision network.
        classification: ``"w"`` weights the cross-entropy by 1/P(class), ``"u"`` does not.
        alignment: ``"w"`` weights the alignment by 1/P(pair of classes), ``"u"`` does not; ``"-"`` is a baseline, which
            has none.
        without: the domain that is excluded from training and selection (* in the table), if any.
        threshold: threshold of the pruning, if any.
        settings: values of other `TrainConfig` fields; none in the table.
    """

    letter: str
    paper: dict[str, float]
    n_sec: int | Literal["all"] = "all"
    backbone: str = "resnet18"
    classification: ClassificationWeight = "w"
    alignment: Alignment = "w"
    without: str | None = None
    threshold: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def starts_from(self) -> str | None:
        """Letter of the experiment whose model this one starts from."""
        if self.threshold is not None:
            return "K"
        return None if self.alignment == "-" else "A"


_ROWS = (
    Experiment("A", _recalls(74.1, 24.9, 25.7, 32.1, 7.3, 80.4, 47.7, 41.8), n_sec=0, alignment="-"),
    Experiment(
        "B", _recalls(75.6, 26.3, 27.8, 28.3, 9.4, 53.6, 43.8, 37.8), n_sec=0, alignment="-", backbone="resnet50"
    ),
    Experiment(
        "C", _recalls(74.8, 25.9, 23.2, 24.5, 5.2, 60.2, 34.3, 35.4), n_sec=0, alignment="-", backbone="resnet152"
    ),
    Experiment("D", _recalls(71.9, 52.4, 41.6, 46.5, 61.5, 70.5, 57.5, 57.4), n_sec=5, alignment="-"),
    Experiment("E", _recalls(68.4, 73.2, 45.3, 56.4, 70.8, 74.7, 65.8, 64.9), alignment="-"),
    Experiment("F", _recalls(73.6, 45.7, 32.5, 44.2, 68.8, 90.4, 59.6, 59.2), n_sec=1),
    Experiment("G", _recalls(75.0, 48.7, 36.2, 41.8, 71.9, 96.2, 64.4, 62.0), n_sec=2),
    Experiment("H", _recalls(72.4, 44.8, 40.9, 47.3, 77.1, 97.0, 60.1, 62.8), n_sec=3),
    Experiment("I", _recalls(74.0, 54.6, 40.6, 43.9, 68.8, 94.5, 60.0, 62.3), n_sec=4),
    Experiment("J", _recalls(74.2, 56.2, 38.2, 50.6, 78.1, 95.1, 52.6, 63.6), n_sec=5),
    Experiment("K", _recalls(72.3, 74.3, 44.4, 58.9, 82.3, 99.6, 66.7, 71.2)),
    Experiment("L", _recalls(68.8, 67.1, 37.8, 54.6, 69.8, 99.9, 68.7, 66.7), classification="u"),
    Experiment("M", _recalls(70.3, 65.8, 39.0, 52.7, 75.0, 99.9, 57.1, 65.7), alignment="u"),
    Experiment("N", _recalls(59.1, 54.5, 32.4, 43.8, 69.8, 100.0, 57.6, 59.6), classification="u", alignment="u"),
    Experiment("O", _recalls(71.0, 27.0, 48.3, 60.0, 82.3, 99.9, 58.6, 63.9), without="DMF"),
    Experiment("P", _recalls(73.7, 73.9, 33.7, 58.1, 72.9, 99.5, 64.1, 68.0), without="D7P"),
    Experiment("Q", _recalls(71.1, 75.6, 43.9, 34.7, 67.7, 99.6, 56.5, 64.2), without="MSK"),
    Experiment("R", _recalls(71.8, 73.0, 48.5, 60.9, 37.5, 98.3, 66.6, 65.2), without="PH2"),
    Experiment("S", _recalls(73.9, 73.9, 49.8, 61.5, 64.6, 46.3, 68.2, 62.6), without="SON"),
    Experiment("T", _recalls(70.1, 75.2, 45.5, 55.6, 76.0, 99.5, 69.0, 70.1), without="UDA"),
    Experiment("U", _recalls(71.9, 71.6, 47.7, 61.2, 77.1, 99.2, 69.1, 71.1), threshold=1e-4),
    Experiment("V", _recalls(72.5, 70.2, 47.4, 54.9, 77.1, 99.9, 65.7, 69.7), threshold=1e-3),
)

EXPERIMENTS: dict[str, Experiment] = {row.letter: row for row in _ROWS}
