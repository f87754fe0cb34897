"""A deployed model that answers with a set of classes: numpy, Pillow and a runtime, without fastccsa or a network.

    fastccsa export --run runs/k --onnx model.onnx --preprocess all
    python examples/deploy.py calibrate model.onnx --manifest manifest.csv --coverage 0.9
    python examples/deploy.py answer model.onnx photograph.jpg
    python examples/deploy.py check model.onnx --manifest manifest.csv

`model.onnx` may also be a `model.pte` (pip install executorch). Split conformal prediction: of n validation images, the
score is 1 - p(true class); the answer has every class whose score is at most the ceil((n + 1) * coverage)-th smallest
of these, and the most probable class. For photographs drawn like the validation images, the true class is in the answer
with at least the stated probability, whatever the model. For photographs of another kind there is no such promise:
`check` prints the coverage on the test images of each domain.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

Array = np.ndarray


class Model:
    """An exported file with its record FILE.json: from a photograph to the probability of each class."""

    def __init__(self, path: Path) -> None:
        self.record = json.loads(_beside(path, ".json").read_text(encoding="utf-8"))
        self.classes: list[str] = self.record["classes"]
        self._logits = _open_executorch(path) if path.suffix == ".pte" else _open_onnx(path)

    def probabilities(self, photograph: Path) -> Array:
        """Return the probability of each class, [C]."""
        logits = self._logits(prepare(photograph, self.record["preprocessing"]))[0].astype(np.float64)
        exponentials = np.exp(logits - logits.max())
        return exponentials / exponentials.sum()


def prepare(path: Path, steps: list[dict]) -> Array:
    """Read a photograph and apply the steps that are not part of the model; the result is a batch of one."""
    image: Image.Image = Image.open(path)
    array: Array | None = None
    for step in steps:
        match step["step"]:
            case "decode":
                image = ImageOps.exif_transpose(image).convert("RGB")
            case "resize":
                image = image.resize((step["width"], step["height"]), Image.Resampling.BILINEAR)
            case "crop":
                image = image.crop(
                    (step["left"], step["top"], step["left"] + step["width"], step["top"] + step["height"])
                )
            case "scale":
                array = np.asarray(image, np.float32) * np.float32(step["multiply_by"])
            case "normalise":
                array = (array - np.array(step["mean"], np.float32)) / np.array(step["std"], np.float32)
            case "transpose":
                array = array.transpose(2, 0, 1)
            case unknown:
                raise SystemExit(f"this script does not know the step {unknown!r} of the model's preprocessing")
    return np.ascontiguousarray(np.asarray(image) if array is None else array)[None]


def threshold(scores: Array, coverage: float) -> float:
    """Return the largest score of a class in the answer, from the scores of the true classes of n images."""
    rank = math.ceil((len(scores) + 1) * coverage)
    if rank > len(scores):
        least = math.ceil(coverage / (1 - coverage) - 1e-9)
        raise SystemExit(f"a coverage of {coverage:g} needs {least} images or more, and there are {len(scores)}")
    return float(np.sort(scores)[rank - 1])


def answer(probabilities: Array, largest: float) -> list[int]:
    """Return the classes of the answer, the most probable first."""
    order = np.argsort(-probabilities)
    return [int(i) for place, i in enumerate(order) if place == 0 or 1 - probabilities[i] <= largest]


def read_split(manifest: Path, split: str) -> list[dict[str, str]]:
    """Read the rows of a split; images are relative to the manifest."""
    with open(manifest, newline="", encoding="utf-8") as file:
        return [row | {"path": str(manifest.parent / row["image"])} for row in csv.DictReader(file)
                if row["split"] == split]  # fmt: skip


def calibrate(model: Model, rows: list[dict[str, str]], coverage: float) -> dict:
    """Measure the threshold on labelled photographs."""
    scores = [1 - model.probabilities(Path(row["path"]))[model.classes.index(row["label"])] for row in rows]
    return {"coverage": coverage, "images": len(rows), "threshold": threshold(np.array(scores), coverage)}


def check(model: Model, rows: list[dict[str, str]], largest: float) -> list[tuple[str, int, float, float]]:
    """Return per domain, and for all together: images, share of answers with the true class, mean size of an answer."""
    found: dict[str, list[tuple[bool, int]]] = {}
    for row in rows:
        classes = answer(model.probabilities(Path(row["path"])), largest)
        correct = model.classes.index(row["label"]) in classes
        for name in (row["domain"], "all"):
            found.setdefault(name, []).append((correct, len(classes)))
    names = [name for name in found if name != "all"]
    return [(name, len(found[name]), *np.mean(found[name], axis=0).tolist()) for name in (*names, "all")]


def main(argv: list[str] | None = None) -> None:
    """Run one of the three commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["calibrate", "answer", "check"])
    parser.add_argument("model", type=Path, help="exported .onnx or .pte, with its record .json beside it")
    parser.add_argument("photographs", type=Path, nargs="*", help="for answer")
    parser.add_argument("--manifest", type=Path, help="labelled images, for calibrate and check")
    parser.add_argument("--coverage", type=float, default=0.9, help="of the answers (default: 0.9)")
    args = parser.parse_args(argv)
    if not 0 < args.coverage < 1:
        parser.error("--coverage must be between 0 and 1")
    if (args.manifest is None) != (args.command == "answer") or bool(args.photographs) != (args.command == "answer"):
        parser.error("answer takes photographs; calibrate and check take --manifest")
    model, sets = Model(args.model), _beside(args.model, ".sets.json")
    if args.command == "calibrate":
        found = calibrate(model, read_split(args.manifest, "validation"), args.coverage)
        sets.write_text(json.dumps(found) + "\n", encoding="utf-8")
        print(f"{sets}: {found}")
        return
    about = json.loads(sets.read_text(encoding="utf-8"))
    if args.command == "check":
        print(f"{'':>8} {'images':>7} {'coverage':>9} {'classes':>8}   stated: {about['coverage']:g}")
        for name, images, covered, size in check(model, read_split(args.manifest, "test"), about["threshold"]):
            print(f"{name:>8} {images:7d} {covered:9.3f} {size:8.2f}")
        return
    for path in args.photographs:
        probabilities = model.probabilities(path)
        classes = answer(probabilities, about["threshold"])
        text = ", ".join(f"{model.classes[i]} ({probabilities[i]:.2f})" for i in classes)
        print(f"{path}: {text}; contains the true class with probability {about['coverage']:g} or more")


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _open_onnx(path: Path) -> Callable[[Array], Array]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["logits"], {"images": images})[0]


def _open_executorch(path: Path) -> Callable[[Array], Array]:
    import torch  # only ExecuTorch's Python runtime needs it: those of C++, Java and Swift have tensors of their own
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(path)
    method = program.load_method("forward")
    # The program is kept as long as its method, which points into it.
    return lambda images, _=program: method.execute([torch.from_numpy(images)])[0].numpy()


if __name__ == "__main__":
    main()
