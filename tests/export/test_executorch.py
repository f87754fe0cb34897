"""ExecuTorch files: the logits of the run in ExecuTorch's own runtime."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastccsa import InputError, load_model
from fastccsa.export import Reference, export_executorch
from fastccsa.export.latency import measure
from fastccsa.images import Transforms

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SIZE = 32
MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in (Transforms().mean, Transforms().std))


def test_photographs_must_be_resized_before(run_folder, tmp_path) -> None:
    with pytest.raises(InputError, match="images of one size"):
        export_executorch(Reference(run_folder, None, preprocess="all"), tmp_path / "model.pte")
    with pytest.raises(InputError, match=r"must end in \.pte"):
        export_executorch(Reference(run_folder, None), tmp_path / "model.onnx")


def test_executorch_computes_the_logits_of_the_run(run_folder, manifest, tmp_path, monkeypatch) -> None:
    runtime = pytest.importorskip("executorch.runtime", reason="ExecuTorch is not usable here", exc_type=ImportError)
    path = tmp_path / "model.pte"
    agreement = export_executorch(Reference(run_folder, manifest, preprocess="normalise", workers=1), path)
    assert 0 <= agreement.difference <= agreement.bound
    assert json.loads((tmp_path / "model.pte.json").read_text())["preprocessing"][-1]["step"] == "crop"
    program = runtime.Runtime.get().load_program(path)
    method = program.load_method("forward")
    pixels = torch.randint(0, 256, (2, SIZE, SIZE, 3), dtype=torch.uint8)
    found = torch.cat([method.execute([image[None]])[0].clone() for image in pixels])
    with torch.no_grad():
        expected = load_model(run_folder)((pixels.permute(0, 3, 1, 2) / 255 - MEAN) / STD)[0]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert measure(path, seconds=0).shape == (1, SIZE, SIZE, 3)

    # The example of a deployment runs it too.
    monkeypatch.syspath_prepend(EXAMPLES)
    deployed = importlib.import_module("deploy").Model(path)
    Image.fromarray(pixels[0].numpy()).resize((93, 93), Image.Resampling.NEAREST).save(tmp_path / "photograph.png")
    image = Image.open(tmp_path / "photograph.png").crop([30, 30, 62, 62])
    centre = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = load_model(run_folder)((centre - MEAN) / STD)[0].softmax(1)[0]
    np.testing.assert_allclose(deployed.probabilities(tmp_path / "photograph.png"), expected, atol=1e-3)
