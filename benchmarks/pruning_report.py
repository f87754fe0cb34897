"""A pruned run compared with its original run: size, recall, channels, and its size at other thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from torchvision.models.resnet import Bottleneck

from fastccsa.models import MODEL_FILE, Classifier, load_model
from fastccsa.pruning.record import PruneRecord
from fastccsa.pruning.resnet import blocks_of
from fastccsa.runs.folder import finished_scores

THRESHOLDS = tuple(10 ** (exponent / 4) for exponent in range(-24, -3))  # 1e-6 to 0.1


def report_pruning(run: Path) -> dict[str, Any]:
    """Compare a pruned run with the run it was made from.

    Returns:
        ``record`` of the pruning; ``file_bytes`` of both models; ``recall``: macro recall in [0, 1] by domain and
        ``avg`` of the original run, of the pruned network before fine-tuning, and of the pruned run, if scored;
        ``curve``: parameters of the whole network by threshold, along the paths of this pruning.

    Raises:
        InputError: the run is not a pruned one, or the run it was made from is missing.
    """
    record = PruneRecord.read(run)
    before = Path(record.config["run"])
    folders = {"before": before, "selected": run / "selected", "after": run}
    scores = {name: found for name, folder in folders.items() if (found := finished_scores(folder)) is not None}
    original = load_model(before)
    return {
        "record": asdict(record),
        "file_bytes": {name: (folders[name] / MODEL_FILE).stat().st_size for name in ("before", "after")},
        "recall": {
            name: {domain: score.macro_recall for domain, score in found.domains.items()} | {"avg": found.average}
            for name, found in scores.items()
        },
        "curve": [(threshold, parameters_at(original, record.kept_at(threshold))) for threshold in THRESHOLDS],
    }


def parameters_at(model: Classifier, kept: Mapping[str, int]) -> int:
    """Count the parameters of ``model`` with only ``kept`` input channels in its prunable layers."""
    total = sum(parameter.numel() for parameter in model.parameters())
    for name, block in blocks_of(model):
        convs = [block.conv1, block.conv2, *([block.conv3] if isinstance(block, Bottleneck) else [])]
        own = [conv.out_channels for conv in convs[:-1]]
        fewer = [kept[f"{name}.conv{number}"] for number in range(2, len(convs) + 1)]
        for widths, sign in ((own, -1), (fewer, 1)):
            channels = [convs[0].in_channels, *widths, convs[-1].out_channels]
            pairs = zip(convs, channels[:-1], channels[1:], strict=True)
            weights = sum(a * b * conv.kernel_size[0] * conv.kernel_size[1] for conv, a, b in pairs)
            total += sign * (weights + 2 * sum(widths))
    return total


def as_text(found: Mapping[str, Any]) -> str:
    """Format the result of `report_pruning` as tables."""
    record = found["record"]
    sizes = pd.DataFrame({when: pd.Series(record[when]) for when in ("before", "after")})
    sizes.loc["bytes of the file"] = found["file_bytes"]
    kept = {layer["name"]: f"{len(layer['kept'])} of {layer['channels']}" for layer in record["layers"]}
    curve = {f"{threshold:.1e}": f"{count / 1e6:.2f}" for threshold, count in found["curve"]}
    tables = {
        "": sizes.assign(ratio=sizes["after"] / sizes["before"]).round(2).to_string(),
        "macro-average recall in %, test images": (100 * pd.DataFrame(found["recall"])).T.round(1).to_string(),
        "channels kept": pd.Series(kept).to_string(),
        "threshold: parameters, M (along the paths of this pruning)": pd.Series(curve).to_string(),
    }
    return "\n\n".join(f"{title}\n{table}" for title, table in tables.items())
