"""Broken files: every file that the project reads is damaged or crafted, and read.

    python tests/soak/broken_files.py --files 2000

A small run is trained, and a pruning is recorded. Then one file at a time is changed (`mutations`), or replaced by a
folder, a link to itself or a pipe, and everything that reads it reads it. Each reading ends in one of four ways: the
project's `InputError`, a result, a traceback, or a crash of the process (a signal, or no end within a minute). Readers
that hand memory to compiled code run in a child. The exit status says whether there was a traceback or a crash.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import mutations as how
import numpy as np
import torch
from runs import render, small_run
from torch import nn

from fastccsa.cards import facts_of_run
from fastccsa.cards.text import to_markdown
from fastccsa.collections import Manifest
from fastccsa.evaluation import Outputs, score_outputs
from fastccsa.evaluation.tuning import Tuning
from fastccsa.images import Transforms
from fastccsa.images.source import ImageSource
from fastccsa.images.store import open_store
from fastccsa.images.store_backend import StoreBackend
from fastccsa.models import Classifier, ModelCard, build_model, load_model, load_weights
from fastccsa.pruning.config import PruneConfig
from fastccsa.pruning.record import PruneRecord, Size
from fastccsa.pruning.state import LayerRecord, PruneState, load_state, save_state
from fastccsa.reporting.page import _flatten
from fastccsa.reporting.projection import project
from fastccsa.reporting.sections.sampling import sampling_of
from fastccsa.reporting.sections.scale import facts_of
from fastccsa.reporting.table import score_table, to_text
from fastccsa.runs.checkpoint import load_checkpoint, save_checkpoint
from fastccsa.runs.checkpoint_check import Resumed
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.folder import epochs_done, finished_scores, open_run, training_speed, write_environment
from fastccsa.runs.images import open_manifest, select_images
from fastccsa.runs.records import read_runs
from fastccsa.runs.used_images import check_manifest
from fastccsa.sweep import SweepConfig
from fastccsa.system.errors import InputError
from fastccsa.training.loop import train
from fastccsa.training.objectives import build_objective
from fastccsa.training.ranks import ALONE
from fastccsa.training.start import start_state
from fastccsa.training.trackers import IDS_FILE, _read_ids

CPU = torch.device("cpu")
SECONDS = 60  # after which a reading counts as a crash
ENDS = ("InputError", "read", "traceback", "crash")


@dataclass(frozen=True)
class Material:
    """A finished run and what belongs to it: its configuration, its images, and a manifest of the same images."""

    config: TrainConfig
    images: Manifest
    other: Path

    @property
    def run(self) -> Path:
        """The run folder."""
        return Path(self.config.out)


def small_network() -> Classifier:
    """Return a network that is quick to save."""
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )  # fmt: skip
    return Classifier(layers, 3)


def prepare(folder: Path) -> Material:
    """Train a run, and add the files of a pruning, a projection and a note."""
    manifest = render(folder / "images")
    config = small_run(
        manifest, folder / "run", 1, pairs="all", memory=16, checkpoint_every=0, image_backend="torchvision"
    )
    train(config, progress=False)
    run = Path(config.out)
    config = TrainConfig.read(run)
    (run / "previous.pt").unlink(missing_ok=True)
    (run / "note.txt").write_text("a note\n")
    features = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float16)
    project(features, run / "cache")
    pruning, network = pruning_of(run), small_network()
    layer = LayerRecord("backbone.0", 3, (0, 2), (1.0, 0.5, 0.2), (1.0, 0.4, 0.1), 1.5)
    PruneRecord(asdict(pruning), (layer,), Size(100, 200), Size(60, 120)).write(run)
    save_state(run, PruneState(network, small_network(), None, 0, [layer]), pruning)
    checksum = hashlib.sha256(manifest.read_bytes()).hexdigest()
    made = {
        "manifest": {"file": manifest.name, "sha256": checksum},
        "sources": [{"domain": "HAM", "kind": "folders", "path": "HAM"}],
        "left_out": {"HAM": {"the file is unreadable": ["a.jpg"]}},
        "duplicates": {"looked_for": "exact", "same_bytes": [["a.jpg", "b.jpg"]]},
    }
    manifest.with_suffix(".prepare.json").write_text(json.dumps(made))
    (run / IDS_FILE).write_text(json.dumps({"mlflow": "a1", "wandb": "b2"}))
    sweep_of(run, manifest).open()
    other = folder / "images" / "other.csv"
    other.write_bytes(manifest.read_bytes() + b"\n")
    material = Material(config, Manifest.read(manifest), other)
    require_intact(material)
    return material


def require_intact(material: Material) -> None:
    """Read every file as it is: a reader that fails anyway would find nothing."""
    for kind in KINDS:
        for reader in kind.readers:
            faults: list[str] = []
            if reader is not cut_while_reading and (end := read_in_child(reader, material, (), faults)) != "read":
                raise SystemExit(f"{reader.__name__} fails on an intact file: {end} {faults}")


def pruning_of(run: Path) -> PruneConfig:
    """Return the configuration of the pruning that is recorded in the run folder."""
    return PruneConfig(str(run), str(run / "pruned"), threshold=0.01)


def sweep_of(run: Path, manifest: Path) -> SweepConfig:
    """Return the configuration of the sweep that is recorded in the run folder's own folder."""
    return SweepConfig(str(run / "sweep"), ("lr=1e-4,1e-3",), {"manifest": str(manifest)})


def card(material: Material) -> None:
    """Make the model card of the run."""
    to_markdown(facts_of_run(material.run))


def names_of_trackers(material: Material) -> None:
    """Read under which names trackers know the run; a broken file is only a warning."""
    assert all(isinstance(name, str) for name in _read_ids(material.run).values())


def reopen_sweep(material: Material) -> None:
    """Reopen the sweep."""
    sweep_of(material.run, material.images.folder / "manifest.csv").open()


def report_parts(material: Material) -> None:
    """Read the run as a report does, and use what it read."""
    folder = read_runs(material.run)
    to_text(score_table(folder))
    facts_of(folder.runs)
    for run in folder.runs:
        list(_flatten(asdict(run.config)))
        list(_flatten(run.environment or {}))
        training_speed(list(run.history))
        sampling_of(run)


def reopen(material: Material) -> None:
    """Reopen the run folder as training does."""
    open_run(material.config)
    finished_scores(material.run)
    epochs_done(material.run)
    write_environment(material.run, CPU)


def resume(material: Material) -> None:
    """Load the checkpoint, and take a step from it."""
    (material.run / "previous.pt").unlink(missing_ok=True)  # which would be used instead
    config = material.config
    model = build_model(config.backbone, len(material.images.classes), "none", config.size)
    state = start_state(config, model, CPU, None, ALONE)
    run_images = select_images(*open_manifest(config))
    state.memory = build_objective(config, run_images, CPU, model.feature_width).memory
    domains = read_runs(material.run).runs[0].history[0]["validation"]
    load_checkpoint(material.run, state, Resumed(config, 10**6, 5, tuple(domains)))
    logits, features = state.model(torch.zeros(2, 3, config.size, config.size))
    labels = torch.zeros(2, dtype=torch.int64)
    weight = torch.ones((logits.shape[1],) * 2)
    state.memory.terms((features, features), (labels, labels), (labels, labels), weight)
    logits.sum().backward()
    state.optimizer.step()
    state.scheduler.step()
    save_checkpoint(material.run, state, config.to_json())


def warm_start(material: Material) -> None:
    """Load the weights of the checkpoint into another model."""
    load_weights(build_model(material.config.backbone, 7, "none"), material.run / "last.pt")


def load_card(material: Material) -> None:
    """Load the model, and use its card."""
    card, model = ModelCard.read(material.run), load_model(material.run)
    model(torch.zeros(1, 3, material.config.size, material.config.size))
    _ = [*map(str.upper, card.classes), *map(str.upper, card.domains), sum(card.mean) / min(card.std)]


def outputs(material: Material) -> None:
    """Read the outputs on the test images, and score them."""
    found = Outputs.read(material.run / "test_outputs.safetensors")
    score_outputs(found).table()
    found.probabilities.sum()


def validation_outputs(material: Material) -> None:
    """Read the outputs on the validation images, and what is learnt from them."""
    Tuning.choose(Outputs.read(material.run / "validation_outputs.safetensors"), None)


def used(material: Material) -> None:
    """Compare the images of another manifest with those of the run."""
    check_manifest(material.run, material.other, Manifest.read(material.other), ("test",), allow=False)


def pruning(material: Material) -> None:
    """Read the record of the pruning."""
    record = PruneRecord.read(material.run)
    record.summary()
    record.kept_at(0.01)


def resume_pruning(material: Material) -> None:
    """Load the state of the pruning into networks."""
    saved = load_state(material.run, pruning_of(material.run))
    assert saved is not None
    saved.fill(PruneState(small_network(), small_network(), None, 0))


def projection(material: Material) -> None:
    """Read the projection from its cache."""
    project(np.random.default_rng(0).normal(size=(20, 8)).astype(np.float16), material.run / "cache")


def store_backend(material: Material) -> tuple[StoreBackend, Transforms, int]:
    """Open the store of crops."""
    images, transforms = material.images.select("train"), Transforms(material.config.size)
    source = ImageSource(images.paths, images.labels, images.domain_indices, "replace")
    store = open_store(source, transforms, material.images.folder / ".fastccsa-cache", "torchvision", num_threads=1)
    return StoreBackend(source, store, transforms, CPU, "disk"), transforms, len(images)


def read_store(material: Material, between: Callable[[], None] = lambda: None) -> None:
    """Open the store of crops, and make images from all of them."""
    backend, transforms, count = store_backend(material)
    between()
    indices = np.arange(count)
    backend.read(indices, transforms.draw(0, 0, indices, 1))
    backend.close()


def cut_while_reading(material: Material) -> None:
    """Cut the crops short between opening and reading them."""
    file = next(material.images.folder.glob(".fastccsa-cache/*/index.json")).with_name("crops.bin")
    read_store(material, lambda: os.truncate(file, file.stat().st_size // 3))


def manifest(material: Material) -> None:
    """Read the manifest."""
    Manifest.read(material.images.folder / "manifest.csv", check_files=False).summary()


@dataclass(frozen=True)
class Kind:
    """A kind of file: its pattern, seen from the folder of the run, ways to craft it, and what reads it."""

    pattern: str
    crafts: tuple[how.Mutation, ...]
    readers: tuple[Callable[[Material], None], ...]
    in_child: bool = False


KINDS = (
    Kind("config.json", (how.json_value,), (report_parts, reopen)),
    Kind("environment.json", (how.json_value,), (report_parts, reopen, card)),
    Kind("metrics.jsonl", (how.json_line,), (report_parts, reopen)),
    Kind("scores.json", (how.json_value,), (report_parts, reopen)),
    Kind("scores_last.json", (how.json_value,), (report_parts,)),
    Kind("sampling.json", (how.json_value,), (report_parts, card)),
    Kind("tracking.json", (how.json_value,), (names_of_trackers,)),
    Kind("sweep/sweep.json", (how.json_value,), (reopen_sweep,)),
    Kind("../images/manifest.prepare.json", (how.json_value,), (card,)),
    Kind("note.txt", (), (report_parts,)),
    Kind("images.csv", (how.csv_row,), (used,)),
    Kind("model.json", (how.json_value,), (load_card,)),
    Kind("model.safetensors", (how.tensor_header, how.tensor_value), (load_card,), in_child=True),
    Kind("test_outputs.safetensors", (how.tensor_header, how.tensor_value), (outputs, card), in_child=True),
    Kind(
        "validation_outputs.safetensors",
        (how.tensor_header, how.tensor_value),
        (validation_outputs,),
        in_child=True,
    ),
    Kind("last.pt", (how.torch_value, how.torch_value, how.torch_value), (resume, warm_start), in_child=True),
    Kind("prune.json", (how.json_value,), (pruning,)),
    Kind("selection.safetensors", (how.tensor_header, how.tensor_value), (resume_pruning,), in_child=True),
    Kind("cache/*", (), (projection,)),
    Kind("../images/manifest.csv", (how.csv_row,), (manifest,)),
    Kind("../images/.fastccsa-cache/*/index.json", (how.json_value,), (read_store,), in_child=True),
    Kind("../images/.fastccsa-cache/*/crops.bin", (), (read_store, cut_while_reading), in_child=True),
)


@contextmanager
def put_back(file: Path) -> Iterator[None]:
    """Restore a file and its time after the block, whatever the block makes of it."""
    content, about = file.read_bytes(), file.stat()
    try:
        yield
    finally:
        remove(file)
        file.write_bytes(content)
        os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))


def remove(file: Path) -> None:
    """Remove a file or folder, if there is one."""
    shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink(missing_ok=True)


def damage(file: Path, kind: Kind, chance: random.Random) -> str:
    """Damage a file in a random way; return the name of the way."""
    if chance.random() < 0.04:
        remove(file)
        special = chance.choice(("folder", "link", "pipe"))
        {"folder": file.mkdir, "link": lambda: file.symlink_to(file.name), "pipe": lambda: os.mkfifo(file)}[special]()
        return special
    ways = kind.crafts if kind.crafts and chance.random() < 0.65 else how.BYTES
    way = chance.choice(ways)
    content = way(file.read_bytes(), chance)
    file.write_bytes(content)
    return way.__name__


class LateError(BaseException):
    """A reading does not end. Not an Exception, which the reading could answer."""


def late(*_: object) -> NoReturn:
    """End a reading that does not end."""
    raise LateError


def read(
    reader: Callable[[Material], None], material: Material, names: Sequence[str], faults: list[str], kill: bool = False
) -> str:
    """Read; return how it ended. An error that does not name the file, or its folder, in one line is a traceback."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL if kill else late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS, 1)  # again and again, should something catch it
    try:
        reader(material)
    except InputError as error:
        if not any(name in str(error) for name in names) or "\n" in str(error):
            faults.append(f"the message is {error}")
            return "traceback"
        return "InputError"
    except LateError:
        faults.append("does not end")
        return "crash"
    except (Exception, SystemExit):
        faults.append(traceback.format_exc())
        return "traceback"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "read"


def read_in_child(
    reader: Callable[[Material], None], material: Material, names: Sequence[str], faults: list[str]
) -> str:
    """Read in a forked process; return how it ended."""
    child = os.fork()
    if child == 0:
        mine: list[str] = []
        end = read(reader, material, names, mine, kill=True)
        if mine:
            print(*mine, file=sys.stderr, flush=True)
        os._exit(10 + ENDS.index(end))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status < 10:
        faults.append(f"signal {-status}")
        return "crash"
    if ENDS[status - 10] != "read":
        faults.append(f"{ENDS[status - 10]} in a child")
    return ENDS[status - 10]


def attack(material: Material, files: int, seed: int, verbose: bool) -> dict[str, Counter[str]]:
    """Damage as many files as asked, in turn, and read each; return how the readings of each kind ended."""
    found: dict[str, Counter[str]] = {kind.pattern: Counter() for kind in KINDS}
    for number in range(files):
        kind, chance = KINDS[number % len(KINDS)], random.Random(f"{seed} {number}")
        file = next(material.run.glob(kind.pattern)) if "*" in kind.pattern else material.run / kind.pattern
        others = [*material.images.folder.glob(".fastccsa-cache/*/*")] if "cache/" in kind.pattern else []
        for reader in kind.readers:
            chance = random.Random(f"{seed} {number} {reader.__name__}")
            with put_back(file):
                saved = {other: other.read_bytes() for other in others}
                way = damage(file, kind, chance)
                faults: list[str] = []
                end = (read_in_child if kind.in_child else read)(
                    reader, material, (file.name, os.path.normpath(file.parent)), faults
                )
                for other, content in saved.items():
                    remove(other)
                    other.write_bytes(content)
            found[kind.pattern][end] += 1
            if end in ("traceback", "crash"):
                print(f"{number} {kind.pattern} {way} {reader.__name__}: {end}", file=sys.stderr)
                if verbose:
                    print(*faults, file=sys.stderr)
    return found


def main() -> None:
    """Run the test and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2000, help="number of files to damage (default 2000)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the damage")
    parser.add_argument("--verbose", action="store_true", help="print the tracebacks")
    parser.add_argument("--folder", type=Path, help="folder to work in, which is kept (default: a temporary one)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        material = prepare(folder)
        found = attack(material, options.files, options.seed, options.verbose)
    print(f"{'file':<46}" + "".join(f"{end:>12}" for end in ENDS))
    total: Counter[str] = Counter()
    for pattern, ends in found.items():
        print(f"{pattern:<46}" + "".join(f"{ends[end]:>12}" for end in ENDS))
        total += ends
    print(f"{'readings':<46}" + "".join(f"{total[end]:>12}" for end in ENDS))
    print(f"{'seconds':<46}{time.monotonic() - started:>12.0f}")
    raise SystemExit(1 if total["traceback"] or total["crash"] else 0)


if __name__ == "__main__":
    main()
