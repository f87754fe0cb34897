"""Pruning a whole run: its folder, resuming, other criteria, and errors."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision

from fastccsa import load_model
from fastccsa.collections.stratify import stratified_subset
from fastccsa.data import Manifest
from fastccsa.evaluation import Outputs, Scores, score_outputs
from fastccsa.pruning import CRITERIA, PruneConfig, layer, procedure, prune
from fastccsa.pruning.record import PruneRecord, Size
from fastccsa.pruning.subset import deal
from fastccsa.runs.folder import OUTPUTS_FILE
from fastccsa.runs.sampling_record import SamplingRecord
from fastccsa.system.errors import InputError
from fastccsa.training import TrainConfig
from fastccsa.training.objectives import CCSA

SMALL = {"images": 24, "discrimination_images": 12, "epochs": 1, "device": "cpu", "workers": 1, "progress": False}
BACKBONES = ("resnet_basic", "resnet_bottleneck")


@pytest.fixture(scope="module", params=BACKBONES)
def pruned(request, make_run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("pruned") / "u"
    prune(make_run(request.param), out, rate=0.5, **SMALL)
    return out


def test_it_results_in_a_run_with_a_smaller_network(pruned, make_run) -> None:
    record = PruneRecord.read(pruned)
    config = TrainConfig.read(pruned)
    model, original = load_model(pruned), load_model(make_run(config.backbone))
    assert record.before == Size.of(original, 32)
    assert record.after == Size.of(model, 32)
    assert record.after.parameters < record.before.parameters
    assert record.after.multiply_adds < record.before.multiply_adds
    for entry in record.layers:
        assert model.backbone.get_submodule(entry.name).in_channels == entry.channels // 2 == len(entry.kept)
        assert original.backbone.get_submodule(entry.name).in_channels == entry.channels
        assert len(set(entry.kept)) == len(entry.kept)
    inner = 2 if config.backbone == "resnet_bottleneck" else 1
    assert len(record.layers) == 4 * inner
    for folder in (pruned, pruned / "selected"):
        outputs, scores = Outputs.read(folder / OUTPUTS_FILE), Scores.read(folder / "scores.json")
        assert outputs.split == "test"
        assert score_outputs(outputs).domains == scores.domains
        assert TrainConfig.read(folder).backbone == config.backbone
    assert not (pruned / "selection.safetensors").exists()


def check_the_lines_of_plain_torchvision(run: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "pruning.md").read_text()
    (lines,) = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    names = {"json": json, "safetensors": safetensors, "torch": torch, "torchvision": torchvision}
    exec(lines.replace("runs/u", str(run)), names)
    images = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(names["model"].eval()(images), load_model(run)(images)[0])


def test_the_documented_lines_load_it_with_plain_torchvision(pruned) -> None:
    check_the_lines_of_plain_torchvision(pruned)


def test_the_documented_lines_load_a_run_that_lost_no_channel(make_run) -> None:
    check_the_lines_of_plain_torchvision(make_run("resnet_basic"))


def test_before_fine_tuning_it_computes_the_same_as_the_masked_network(make_run, tmp_path, monkeypatch) -> None:
    """Compare the network with channels set to zero and the one without these channels."""
    masked = {}
    keep = layer.keep_channels

    def keep_and_compare(model, chosen, kept, weight, size):
        images = torch.randn(4, 3, size, size)
        conv = model.backbone.get_submodule(chosen.name)
        with torch.no_grad():
            full = torch.zeros_like(conv.weight)
            full[:, kept] = weight
            conv.weight.copy_(full)
            expected = model(images)
            keep(model, chosen, kept, weight, size)
            masked[chosen.name] = (expected, model(images))

    monkeypatch.setattr(layer, "keep_channels", keep_and_compare)
    prune(make_run("resnet_bottleneck"), tmp_path / "u", rate=0.4, **SMALL)
    assert len(masked) == 8
    for expected, found in masked.values():
        for one, other in zip(expected, found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("killed_at", [1, 3])
def test_a_killed_pruning_resumes_after_its_last_layer(make_run, tmp_path, monkeypatch, killed_at) -> None:
    run = make_run("resnet_basic")
    whole = tmp_path / "whole"
    prune(run, whole, threshold=1e-2, **SMALL)

    broken, calls = tmp_path / "broken", []
    prune_layer = procedure.prune_layer

    def kill(*arguments, **options):
        calls.append(arguments[2].name)
        if len(calls) > killed_at:
            raise KeyboardInterrupt
        return prune_layer(*arguments, **options)

    monkeypatch.setattr(procedure, "prune_layer", kill)
    with pytest.raises(KeyboardInterrupt):
        prune(run, broken, threshold=1e-2, **SMALL)
    monkeypatch.setattr(procedure, "prune_layer", lambda *a, **k: (calls.append(a[2].name), prune_layer(*a, **k))[1])
    prune(run, broken, threshold=1e-2, **SMALL)
    assert len(calls) == 5  # one of the four layers was started twice

    one, other = PruneRecord.read(whole), PruneRecord.read(broken)
    assert [x.kept for x in one.layers] == [x.kept for x in other.layers]
    for name in ("selected", "."):
        first, second = (safetensors.torch.load_file(folder / name / "model.safetensors") for folder in (whole, broken))
        for key, value in first.items():
            torch.testing.assert_close(value, second[key], rtol=0, atol=0)


def test_the_state_of_a_pruning_that_was_killed_after_its_selection_is_removed(make_run, tmp_path, monkeypatch) -> None:
    run, out = make_run("resnet_basic"), tmp_path / "u"
    write_selected = procedure._write_selected

    def kill(*arguments):
        write_selected(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(procedure, "_write_selected", kill)
    with pytest.raises(KeyboardInterrupt):
        prune(run, out, threshold=1e-2, **SMALL)
    monkeypatch.setattr(procedure, "_write_selected", write_selected)
    assert (out / "selection.safetensors").exists()
    prune(run, out, threshold=1e-2, **SMALL)
    assert not (out / "selection.safetensors").exists()


def test_a_finished_pruning_is_left_unchanged_and_other_settings_are_an_error(make_run, tmp_path) -> None:
    run, out = make_run("resnet_basic"), tmp_path / "u"
    scores = prune(run, out, threshold=1e-2, **SMALL)
    files = {file: file.stat().st_mtime_ns for file in out.glob("*.safetensors")}
    assert prune(run, out, threshold=1e-2, **SMALL) == scores
    assert files == {file: file.stat().st_mtime_ns for file in out.glob("*.safetensors")}
    with pytest.raises(InputError, match="threshold"):
        prune(run, out, threshold=2e-2, **SMALL)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_has_the_same_budget(make_run, tmp_path, criterion) -> None:
    out = tmp_path / criterion
    prune(make_run("resnet_basic"), out, rate=0.5, criterion=criterion, **SMALL)
    assert [len(entry.kept) for entry in PruneRecord.read(out).layers] == [2, 4, 8, 16]


def test_a_baseline_is_pruned_by_its_classification_loss(make_run, tmp_path) -> None:
    run = make_run("resnet_basic", n_sec=0, alignment="-")
    prune(run, tmp_path / "u", threshold=1e-3, round_to=4, **SMALL)
    assert all(len(entry.kept) % 4 == 0 for entry in PruneRecord.read(tmp_path / "u").layers)


def test_all_fine_tuning_keeps_the_margin_of_the_run(make_run, tmp_path, monkeypatch) -> None:
    """That is a multiple of a distance, which the pruned network no longer has."""
    run = make_run("resnet_basic")
    margins, fine_tune_stage = [], procedure.fine_tune_stage

    def watch(*arguments):
        margins.append(next(each for each in arguments if isinstance(each, CCSA)).loss.margin)
        fine_tune_stage(*arguments)

    monkeypatch.setattr(procedure, "fine_tune_stage", watch)
    prune(run, tmp_path / "u", rate=0.5, **SMALL)
    assert TrainConfig.read(run).margin_unit == "median"
    margins += [SamplingRecord.read(tmp_path / "u").margin]
    assert len(margins) == 4
    assert set(margins) == {SamplingRecord.read(run).margin}


def test_a_run_without_its_margin_cannot_be_pruned(make_run, tmp_path) -> None:
    run = tmp_path / "k"
    shutil.copytree(make_run("resnet_basic"), run)
    (run / "sampling.json").unlink()
    with pytest.raises(InputError, match=r"sampling\.json does not have the run's margin"):
        prune(run, tmp_path / "u", rate=0.5, **SMALL)
    assert not (tmp_path / "u").exists()


def test_the_record_shows_what_other_thresholds_would_keep(make_run, tmp_path) -> None:
    prune(make_run("resnet_basic"), tmp_path / "u", threshold=1e-2, **SMALL)
    record = PruneRecord.read(tmp_path / "u")
    assert record.kept_at(1e-2) == {entry.name: len(entry.kept) for entry in record.layers}
    counts = [sum(record.kept_at(threshold).values()) for threshold in (1e-6, 1e-3, 1e-1, 0.9)]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] >= len(record.layers)


def test_gradient_and_value_of_a_loss_use_images_of_the_same_kinds(manifest_csv) -> None:
    manifest = stratified_subset(Manifest.read(manifest_csv), 24)
    first, second, rest = deal(manifest, 18)
    assert sorted([*first, *second, *rest]) == list(range(24))
    kinds = [sorted(zip(manifest.domain_indices[half], manifest.labels[half], strict=True)) for half in (first, second)]
    assert kinds[0] == kinds[1]
    assert len(set(kinds[0])) == 9


def test_too_few_images_for_the_discrimination_loss_are_an_error(make_run, tmp_path) -> None:
    with pytest.raises(InputError, match=r"discrimination_images is 2.*give more"):
        prune(make_run("resnet_basic"), tmp_path / "u", rate=0.5, **(SMALL | {"discrimination_images": 2}))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "either a threshold or a rate"),
        ({"threshold": 1e-3, "rate": 0.5}, "either a threshold or a rate"),
        ({"threshold": 0.0}, "threshold is 0.0"),
        ({"threshold": 1.0}, "threshold is 1.0"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"rate": 1.0}, "rate is 1.0"),
        ({"rate": -0.1}, "rate is -0.1"),
        ({"rate": 0.95}, "removes all 4 input channels of layer1.0.conv2"),
        ({"rate": 0.5, "auxiliary": 4}, "give 3 at most"),
        ({"rate": 0.5, "round_to": 0}, "round_to"),
        ({"rate": 0.5, "fraction": 0.0}, "fraction is 0.0"),
        ({"rate": 0.5, "criterion": "luck"}, "luck"),
        ({"threshold": 1e-3, "stop": "never"}, "never"),
        ({"threshold": 1e-3, "refit": "nothing"}, "nothing"),
        ({"threshold": 1e-3, "images": 1}, "images is 1"),
        ({"rate": 0.5, "nonsense": 1}, "nonsense"),
        ({"rate": 0.5, "device": "abacus"}, "abacus"),
    ],
)
def test_bad_values_are_errors_before_anything_is_written(make_run, tmp_path, options, words) -> None:
    with pytest.raises(InputError, match=words):
        prune(make_run("resnet_basic"), tmp_path / "u", progress=False, **options)
    assert not (tmp_path / "u").exists()


def test_runs_that_cannot_be_pruned(make_run, tmp_path) -> None:
    with pytest.raises(InputError, match="no trained model"):
        prune(tmp_path / "nowhere", tmp_path / "u", rate=0.5)
    with pytest.raises(InputError, match="only torchvision's ResNets"):
        prune(make_run("shufflenet_v2_x0_5"), tmp_path / "u", rate=0.5, **SMALL)
    unfinished = tmp_path / "unfinished"
    shutil.copytree(make_run("resnet_basic"), unfinished)
    (unfinished / "scores.json").unlink()
    with pytest.raises(InputError, match="not finished"):
        prune(unfinished, tmp_path / "u", rate=0.5)
    (unfinished / "model.safetensors").unlink()
    with pytest.raises(InputError, match="no weights"):
        prune(unfinished, tmp_path / "u", rate=0.5)
    with pytest.raises(InputError, match="another folder"):
        PruneConfig(str(tmp_path), str(tmp_path), rate=0.5)
    assert not (tmp_path / "u").exists()


def test_the_folder_of_another_run_is_left_unchanged(make_run) -> None:
    run = make_run("resnet_basic")
    other = make_run("resnet_basic", seed=1)
    before = {file: file.read_bytes() for file in other.iterdir() if file.is_file()}
    with pytest.raises(InputError, match="run with other settings"):
        prune(run, other, rate=0.5, **SMALL)
    assert before == {file: file.read_bytes() for file in other.iterdir() if file.is_file()}


def test_without_torch_pruning_it_says_what_to_install(make_run, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch_pruning", None)
    with pytest.raises(InputError, match=r"pip install 'fastccsa\[prune\]'"):
        prune(make_run("resnet_basic"), tmp_path / "u", rate=0.5, **SMALL)
    assert not (tmp_path / "u").exists()


def test_a_manifest_that_tests_training_images_is_refused(make_run, manifest_csv: Path, tmp_path: Path) -> None:
    run = make_run()
    swapped = Manifest.read(manifest_csv)
    new = {"train": "test", "test": "train"}
    Manifest(swapped.table.replace({"split": new}), manifest_csv.parent).write(tmp_path / "swapped.csv")
    options = {"threshold": 0.5, "manifest": str(tmp_path / "swapped.csv"), "device": "cpu"}
    with pytest.raises(InputError, match=r"45 of its 45 test images were trained on; restore it, or add --allow"):
        prune(run, tmp_path / "u", progress=False, **options)
    allowed = PruneConfig(str(run), str(tmp_path / "u"), allow_changed_manifest=True, **options)
    assert len(procedure.open_source(allowed)[1].select("test")) == 45
