"""Whole runs at small scale: the files they write, how they resume, and their errors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fastccsa.data import Manifest
from fastccsa.evaluation import Outputs, Scores, evaluate, score_outputs
from fastccsa.images import source as source_module
from fastccsa.models import Classifier, ModelCard, load_model
from fastccsa.runs.images import open_manifest, select_images
from fastccsa.system.errors import InputError
from fastccsa.training import TrainConfig, train
from fastccsa.training import loop as loop_module
from fastccsa.training.graph import StaticStep
from fastccsa.training.meter import Meter
from fastccsa.training.objectives import build_objective
from fastccsa.training.ranks import ALONE
from fastccsa.training.start import check_batch
from fastccsa.training.step import Step, make_forward


class Killed(BaseException):
    """Simulates the death of the process: nothing in the package catches it."""


def kill_at(monkeypatch, updates: int) -> None:
    """Die in the middle of step number ``updates``, counted over the whole call of `train`."""
    original, count = Meter.update, 0

    def update(self, *args):
        nonlocal count
        count += 1
        if count == updates:
            raise Killed
        original(self, *args)

    monkeypatch.setattr(Meter, "update", update)


def checkpoint(out: str | Path) -> dict:
    return torch.load(Path(out) / "last.pt", weights_only=True)


def assert_same(first, second, where: str = "") -> None:
    """Compare bit for bit, except for times."""
    assert type(first) is type(second), where
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first.keys() - {"seconds", "images_per_second", "config", "digest"}:
            assert_same(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for number, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, f"{where}[{number}]")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    else:
        assert first == second, where


def test_a_run_learns_and_records_what_it_did(make_config, manifest_csv, capsys) -> None:
    config = make_config(alignment="-", backbone="resnet18", epochs=4, lr_step=3, lr=3e-4)
    scores = train(config)
    out = Path(config.out)
    assert {path.name for path in out.iterdir()} == {
        "config.json", "environment.json", "images.csv", "last.pt", "metrics.jsonl", "model.json", "model.safetensors",
        "model_card.json", "model_card.md",
        "previous.pt", "sampling.json", "scores.json", "scores_last.json", "tensorboard", "test_outputs.safetensors",
        "validation_outputs.safetensors",
    }  # fmt: skip
    assert scores.average > 0.9  # the colours tell the classes
    assert Scores.read(out / "scores.json") == scores

    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in metrics] == [1, 2, 3, 4]
    assert [record["lr"] for record in metrics] == pytest.approx([3e-4] * 3 + [3e-5])
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    assert metrics[0]["validation"].keys() == {"HAM", "DMF", "SON"}
    recalls = [record["validation_recall"] for record in metrics]
    assert scores.selection is not None
    assert scores.selection.choices["paper"].recall == max(recalls)
    assert scores.selection.choices["paper"].epoch == 1 + recalls.index(max(recalls))
    # Two validation images per class: the variance of a domain's recall is at most 1/24, of the mean over three 1/72.
    latest = max(epoch for epoch, recall in enumerate(recalls, start=1) if recall >= max(recalls) - 72**-0.5)
    assert scores.selection.epoch == latest
    assert scores.selection.recall == pytest.approx(recalls[latest - 1])
    assert scores.selection.rule == (
        "latest epoch within one standard error (11.8 points) of the highest weighted mean validation macro-average "
        "recall over HAM 33 %, DMF 33 %, SON 33 %"
    )

    saved = TrainConfig.read(out)
    assert saved.differences(replace(config, manifest_sha256=saved.manifest_sha256)) == []
    assert ModelCard.read(out).domains == ("HAM", "DMF", "SON")
    assert json.loads((out / "environment.json").read_text())["device"] == "cpu"
    again = evaluate(load_model(out), Manifest.read(manifest_csv), "cpu", size=32, workers=1)
    assert again.domains == scores.domains
    outputs = Outputs.read(out / "test_outputs.safetensors")
    assert score_outputs(outputs).domains == scores.domains
    tested = Manifest.read(manifest_csv).take(outputs.rows)
    assert set(tested.table["split"]) == {"test"}
    assert tested.labels.tolist() == outputs.targets.tolist()
    validation = Outputs.read(out / "validation_outputs.safetensors")
    validated = Manifest.read(manifest_csv).take(validation.rows)
    assert set(validated.table["split"]) == {"validation"}
    assert validated.labels.tolist() == validation.targets.tolist()
    printed = capsys.readouterr().out
    assert "epoch 4/4" in printed
    assert "avg" in printed


def test_the_best_epoch_is_kept_not_the_last(make_config, monkeypatch) -> None:
    recalls = iter([0.2, 0.8, 0.5])
    validate = loop_module.validate

    def scripted(state, run):
        scores, loss = validate(state, run)
        recall = next(recalls)
        domains = {key: replace(value, macro_recall=recall) for key, value in scores.domains.items()}
        if recall == 0.8:
            kept.update({key: value.clone() for key, value in state.model.state_dict().items()})
        return replace(scores, domains=domains), loss

    kept: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(loop_module, "validate", scripted)
    config = make_config(alignment="-", n_sec=0, epochs=3)
    scores = train(config, progress=False)
    assert scores.selection is not None
    assert scores.selection.epoch == 2
    assert_same(dict(load_model(config.out).state_dict()), kept)


@pytest.mark.parametrize(
    ("settings", "deaths"),
    [
        ({}, [15]),  # between checkpoints: only that of the first epoch exists
        ({"alignment": "-", "checkpoint_every": 4}, [3, 8, 7]),  # before the first checkpoint and within epochs
        # Dropout draws from torch's generator, whose state must be restored too.
        ({"backbone": "mobilenet_v3_small", "checkpoint_every": 5, "joint_forward": False}, [7, 9]),
        ({"cache": "ram", "checkpoint_every": 4}, [6]),
        ({"accumulate": 2, "clip": 1.0, "ema": 0.5, "checkpoint_every": 4}, [7, 9]),
        ({"pairs": "all", "memory": 25, "checkpoint_every": 5}, [7, 9]),  # the ring wraps around before and after
    ],
)
def test_a_killed_run_resumes_to_the_same_bits(make_config, monkeypatch, settings, deaths) -> None:
    whole, broken = make_config("whole", **settings), make_config("broken", **settings)
    expected = train(whole, progress=False)
    for updates in deaths:
        with monkeypatch.context() as patch:
            kill_at(patch, updates)
            with pytest.raises(Killed):
                train(broken, progress=False)
        torch.manual_seed(99)
    assert train(broken, progress=False) == expected
    assert_same(checkpoint(whole.out), checkpoint(broken.out))
    assert_same(dict(load_model(whole.out).state_dict()), dict(load_model(broken.out).state_dict()))


@pytest.mark.parametrize("kind", [Step, StaticStep])
def test_the_next_epoch_can_be_prepared(make_config, kind) -> None:
    config, manifest = open_manifest(make_config(alignment="-", cache="ram"))
    cpu = torch.device("cpu")
    objective = build_objective(config, select_images(config, manifest), cpu, 8)
    state = SimpleNamespace(model=torch.nn.Linear(1, 1))
    with objective.loader as loader:
        step = kind(state, state.model, objective, config, Meter(objective.terms, cpu), cpu, None, ALONE)

        def whole_epoch(epoch: int) -> list:
            return [batch if kind is StaticStep else batch["images"] for batch in step.batches(epoch, 0)]

        expected, other = whole_epoch(1), whole_epoch(0)
        step.prepare(1)
        prepared = step._prepared[1]
        batches = step.batches(1, 0)
        assert batches is prepared
        list(batches)
        step.prepare(1)
        assert_same(whole_epoch(0), other)
        step.prepare(1)
        next(loader.epoch(5))  # which ends the epoch that was prepared
        assert_same(whole_epoch(1), expected)


def test_a_cached_run_decodes_images_once(make_config, manifest_csv, monkeypatch) -> None:
    config = make_config(alignment="-", cache="disk", epochs=1)
    train(config, progress=False)
    assert list(manifest_csv.parent.glob(".fastccsa-cache/*/crops.bin"))
    read, read_image = [], source_module.read_image
    monkeypatch.setattr(source_module, "read_image", lambda path: read.append(str(path)) or read_image(path))
    train(replace(config, out=config.out + "2"), progress=False)
    test_images = Manifest.read(manifest_csv).select("test").paths
    assert sorted(read) == sorted(test_images)


def test_a_run_killed_after_its_last_epoch_is_only_scored(make_config, monkeypatch) -> None:
    config = make_config(alignment="-", epochs=1)

    def die(*args, **kwargs):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "score_best", die)
        with pytest.raises(Killed):
            train(config, progress=False)
    monkeypatch.setattr(loop_module, "train_one_epoch", die)
    assert train(config, progress=False).selection is not None


def test_a_finished_run_is_left_unchanged(make_config, capsys) -> None:
    config = make_config(alignment="-", epochs=1)
    scores = train(config, progress=False)
    names = ("last.pt", "model.safetensors", "metrics.jsonl", "scores.json")
    before = {name: (Path(config.out) / name).stat().st_mtime_ns for name in names}
    assert train(config) == scores
    assert "is finished" in capsys.readouterr().out
    assert {name: (Path(config.out) / name).stat().st_mtime_ns for name in names} == before


def test_another_training_in_the_same_folder_is_an_error(make_config, manifest_csv, tmp_path) -> None:
    config = make_config(alignment="-", epochs=1)
    train(config, progress=False)
    with pytest.raises(InputError, match=r"other settings \(epochs: 2, not 1; lr: 0\.5, not 0\.001\)"):
        train(replace(config, epochs=2, lr=0.5), progress=False)
    manifest = Manifest.read(manifest_csv)
    manifest.take(range(1, len(manifest))).write(tmp_path / "shorter.csv")
    with pytest.raises(InputError, match="manifest_sha256"):
        train(replace(config, manifest=str(tmp_path / "shorter.csv")), progress=False)


def test_warm_start_loads_the_weights(make_config, monkeypatch) -> None:
    baseline = make_config("a", alignment="-", n_sec=0, epochs=1)
    train(baseline, progress=False)

    def stop(state, run):
        started.update({key: value.clone() for key, value in state.model.state_dict().items()})
        raise Killed

    started: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(loop_module, "train_one_epoch", stop)
    with pytest.raises(Killed):
        train(make_config("k", init=baseline.out), progress=False)
    assert_same(started, dict(load_model(baseline.out).state_dict()))


def test_bad_warm_starts_are_errors_before_training(make_config, tmp_path) -> None:
    baseline = make_config("a", alignment="-", n_sec=0, epochs=1)
    train(baseline, progress=False)
    with pytest.raises(InputError, match="is a shufflenet_v2_x0_5, not a mnasnet0_5"):
        train(make_config("k1", init=baseline.out, backbone="mnasnet0_5"), progress=False)
    (Path(baseline.out) / "scores.json").unlink()
    with pytest.raises(InputError, match="is not finished"):
        train(make_config("k2", init=baseline.out), progress=False)
    with pytest.raises(InputError, match="nowhere"):
        train(make_config("k3", init=str(tmp_path / "nowhere")), progress=False)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(make_config, monkeypatch) -> None:
    config = make_config(alignment="-", checkpoint_every=2)
    build = loop_module.build_objective

    def poisoned(*args):
        objective, steps = build(*args), 0

        def call(forward, batch):
            nonlocal steps
            steps += 1
            return type(objective).__call__(objective, forward, batch) * (float("nan") if steps == 4 else 1)

        class Poisoned:
            terms, images_per_sample, loader = objective.terms, objective.images_per_sample, objective.loader
            memory, record, sees_all_ranks, joint_forward = objective.memory, objective.record, False, False
            __call__ = staticmethod(call)
            calibrate, attach = staticmethod(objective.calibrate), staticmethod(objective.attach)

        return Poisoned()

    monkeypatch.setattr(loop_module, "build_objective", poisoned)
    with pytest.raises(InputError, match="not finite at epoch 1, step 4"):
        train(config, progress=False)
    saved = checkpoint(config.out)
    assert (saved["epoch"], saved["step"]) == (0, 2)
    assert all(torch.isfinite(value).all() for value in saved["model"].values())


def test_bfloat16_autocast_trains_on_the_cpu(make_config) -> None:
    assert train(make_config(amp="bfloat16", epochs=1, n_sec=1, batch_size=12), progress=False).average >= 0


def test_logits_and_features_have_the_same_dtype() -> None:
    class InFloat32(torch.nn.Module):
        """Like the last normalisation of ConvNeXt under autocast on CUDA."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.float()

    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5), InFloat32(), torch.nn.Linear(5, 3))
    forward = make_forward(Classifier(network, 3), torch.device("cpu"), torch.bfloat16)
    logits, features = forward(torch.randn(4, 3, 2, 2))
    assert logits.dtype == features.dtype == torch.float32


def test_a_size_that_the_network_does_not_accept_is_an_error(make_config) -> None:
    with pytest.raises(InputError, match="alexnet cannot take images of 32 px"):
        train(make_config(backbone="alexnet"), progress=False)


def test_batches_of_a_single_image_are_refused_where_batchnorm_needs_two(make_config) -> None:
    config = make_config(alignment="-", n_sec=0, batch_size=1, backbone="resnet18", size=32)
    with pytest.raises(
        InputError, match=r"batch_size 1 passes a single image at a time .* at 32 px: give --batch-size"
    ):
        train(config, progress=False)
    assert not (Path(config.out) / "last.pt").exists()


def pooled(*layers: torch.nn.Module) -> Classifier:
    return Classifier(torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(3, 2)), 2)


@pytest.mark.parametrize(
    ("alignment", "joint", "batch_size", "world", "images"),
    [("-", True, 1, 1, 1), ("w", False, 1, 1, 1), ("w", True, 1, 1, 2), ("-", True, 2, 2, 1), ("-", True, 4, 2, 2)],
)
def test_a_single_image_is_enough_where_batchnorm_sees_several_pixels(
    make_config, alignment: str, joint: bool, batch_size: int, world: int, images: int
) -> None:
    config = make_config(alignment=alignment, joint_forward=joint, batch_size=batch_size, n_sec=1, size=8)
    norm = torch.nn.BatchNorm2d(3)
    check_batch(pooled(norm, torch.nn.AdaptiveAvgPool2d(1)), config, world)
    one_value = pooled(torch.nn.AdaptiveAvgPool2d(1), norm)
    if images == 1:
        with pytest.raises(InputError, match=f"give --batch-size {2 * world} or more"):
            check_batch(one_value, config, world)
    else:
        check_batch(one_value, config, world)
    assert norm.num_batches_tracked == 0


def test_an_unwritable_folder_is_an_error(make_config, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        train(make_config("file/run"), progress=False)


def test_tensorboard_has_every_term_once_a_step(make_config, monkeypatch) -> None:
    config = make_config(epochs=2)
    kill_at(monkeypatch, 20)
    with pytest.raises(Killed):
        train(config, progress=False)
    monkeypatch.undo()
    train(config, progress=False)
    events = EventAccumulator(str(Path(config.out) / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    terms = ("loss", "classification1", "classification2", "alignment", "separation", "lr")
    assert tags >= {f"train/{name}" for name in terms}
    assert tags >= {f"validation_recall/{name}" for name in ("average", "HAM", "DMF", "SON")}
    steps = [event.step for event in events.Scalars("validation_recall/HAM")]
    assert steps == [12, 24]
    losses = [event.step for event in events.Scalars("train/loss")]
    assert losses == sorted(set(losses))
