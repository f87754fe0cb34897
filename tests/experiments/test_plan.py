"""Plans: which runs they contain, in which order, and which problems are found before anything runs."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from fastccsa.data import Manifest
from fastccsa.runs.images import open_manifest, select_images
from fastccsa.runs.locks import try_lock
from fastccsa.system.errors import InputError


def letters(plan) -> str:
    return "".join(run.row.letter for run in plan.runs)


def write_run(run, finished: bool = True) -> None:
    """Write the files of a training into the run's folder."""
    run.folder.mkdir(parents=True)
    (run.folder / "config.json").write_text(run.config.to_json())
    if finished:
        (run.folder / "scores.json").write_text("{}")


def changed(manifest_csv: Path, tmp_path: Path, change) -> Path:
    """Return a copy of the manifest whose table is changed by ``change``."""
    manifest = Manifest.read(manifest_csv)
    path = tmp_path / "changed.csv"
    Manifest(change(manifest.table), manifest.folder).write(path)
    return path


def test_what_a_row_starts_from_is_planned_before_it_with_its_seed(plan_of, tmp_path) -> None:
    plan = plan_of("KM", seeds=2)
    assert [run.name for run in plan.runs] == [
        "A seed 0", "K seed 0", "M seed 0", "A seed 1", "K seed 1", "M seed 1",
    ]  # fmt: skip
    assert plan.added == ("A",)
    assert plan.problems == ()
    runs = {run.name: run for run in plan.runs}
    assert runs["K seed 1"].init == runs["A seed 1"].folder == tmp_path / "runs" / "A" / "seed1"
    assert runs["K seed 1"].config.init == str(tmp_path / "runs" / "A" / "seed1")
    assert runs["K seed 1"].config.seed == 1
    assert runs["A seed 0"].config.init is None


def test_the_configuration_has_the_manifest_s_path_and_checksum(plan_of, manifest_csv) -> None:
    config = plan_of("A").runs[0].config
    assert config.manifest == str(manifest_csv)
    assert config.manifest_sha256 == hashlib.sha256(manifest_csv.read_bytes()).hexdigest()


def test_images_are_counted(plan_of) -> None:
    runs = {run.row.letter: run for run in plan_of("ADFK", scale="size=32,epochs=3,weights=none").runs}
    # 7 training, 2 validation, 2 test images of each of 3 + 3 + 3 + 1 classes
    assert {letter: run.training for letter, run in runs.items()} == {"A": 21, "D": 56, "F": 28, "K": 70}
    assert runs["A"].images_to_train == 3 * 21
    assert runs["K"].images_to_train == 3 * 70 * 2
    assert runs["A"].images_to_score == 3 * 6 + 20
    assert runs["K"].images_to_score == 3 * 20 + 20


def test_epochs_done_are_not_counted_again(plan_of) -> None:
    scale = "size=32,epochs=3,weights=none"
    (run,) = plan_of("A", scale=scale).runs
    write_run(run, finished=False)
    (run.folder / "metrics.jsonl").write_text("{}\n{}\n")
    (again,) = plan_of("A", scale=scale).runs
    assert (again.state, again.epochs_to_go, again.images_to_train) == ("started", 1, 21)


def test_states(plan_of) -> None:
    (run,) = plan_of("A").runs
    assert run.state == "new"
    with try_lock(run.folder) as acquired:
        assert acquired
        assert run.state == "running"
        with try_lock(run.folder) as second:
            assert not second
    write_run(run)
    assert run.state == "finished"
    assert (run.images_to_train, run.images_to_score) == (0, 0)


def test_a_row_whose_collection_is_missing_is_skipped_with_all_and_a_problem_by_letter(plan_of) -> None:
    everything = plan_of("ABCDEFGHIJKLMNOPQRST", skip=True, settings=["backbone=shufflenet_v2_x0_5"])
    assert letters(everything) == "ABCDEFGHIJKLMNOST"
    assert set(everything.skipped) == {"P", "Q", "R"}
    assert "excludes PH2, which the manifest does not have (HAM, DMF, UDA, SON)" in everything.skipped["R"]
    assert everything.problems == ()
    (problem,) = plan_of("KR").problems
    assert problem.startswith("R: it excludes PH2")


def test_rows_with_secondary_domains_need_one(plan_of, manifest_csv, tmp_path) -> None:
    alone = changed(manifest_csv, tmp_path, lambda table: table[table["domain"] == "HAM"])
    plan = plan_of("ADK", manifest=alone)
    assert letters(plan) == "A"
    assert [problem[0] for problem in plan.problems] == ["D", "K"]
    assert "needs a secondary domain" in plan.problems[0]


@pytest.mark.parametrize("letter", "OST")
def test_an_excluded_domain_has_no_images_in_training_and_selection(plan_of, letter) -> None:
    run = next(run for run in plan_of(letter).runs if run.row.letter == letter)
    images = select_images(*open_manifest(run.config))
    left_out = run.row.without
    assert left_out not in set(images.training.table["domain"])
    assert left_out not in set(images.validation.table["domain"])
    assert left_out not in images.selection_rule
    assert set(images.validation.table["domain"]) == {"HAM", "DMF", "UDA", "SON"} - {left_out}


def test_selection_uses_the_primary_domain_in_a_to_c_and_all_training_domains_otherwise(plan_of) -> None:
    rules = {run.row.letter: select_images(*open_manifest(run.config)).selection_rule for run in plan_of("ABCDK").runs}
    assert rules["A"] == rules["B"] == rules["C"]
    assert rules["A"].endswith("of the highest validation macro-average recall of HAM")
    assert rules["D"] == rules["K"]
    assert rules["D"].endswith("macro-average recall over HAM 33 %, DMF 33 %, UDA 33 %, SON 0 %")


def test_n_sec_stays_nested_under_a_fraction(plan_of) -> None:
    scale = "size=32,epochs=1,weights=none,fraction=0.3"
    seen = {}
    for run in plan_of("FGHIJK", scale=scale).runs:
        images = select_images(*open_manifest(run.config))
        seen[run.row.letter] = set(images.training.table["image"])
    assert seen["F"] < seen["G"] < seen["H"] < seen["I"] < seen["J"]
    assert seen["J"] == seen["K"]  # 30 % of 7 images are 3, but 5 are kept
    assert len(seen["J"]) == 50


# Problems, each reported in one line before anything runs.


def problem_of(plan) -> str:
    (problem,) = plan.problems
    assert "\n" not in problem
    return problem


def test_an_empty_domain(plan_of, manifest_csv, tmp_path) -> None:
    path = changed(
        manifest_csv, tmp_path, lambda table: table[(table["domain"] != "UDA") | (table["split"] != "train")]
    )
    assert problem_of(plan_of("E", manifest=path)).startswith("E: domain UDA has no train image")


def test_a_class_missing_from_training(plan_of, manifest_csv, tmp_path) -> None:
    def drop(table):
        return table[(table["domain"] != "HAM") | (table["label"] != "bcc") | (table["split"] == "test")]

    problem = problem_of(plan_of("A", manifest=changed(manifest_csv, tmp_path, drop)))
    assert problem.startswith("A: no training image of HAM shows bcc")


def test_a_domain_unknown_to_the_manifest(plan_of) -> None:
    assert "exclude domain 'XYZ' is not in" in problem_of(plan_of("A", settings=["exclude=XYZ"]))


def test_an_unknown_network_and_one_that_does_not_accept_the_images(plan_of) -> None:
    assert "unknown backbone 'resnet81'" in problem_of(plan_of("A", settings=["backbone=resnet81"]))
    assert "alexnet cannot take images of 32 px" in problem_of(plan_of("A", settings=["backbone=alexnet"]))


def test_a_network_that_cannot_be_pruned(plan_of) -> None:
    assert problem_of(plan_of("U")).startswith("U: a ShuffleNetV2 cannot be pruned")


def test_pruning_without_its_package(plan_of, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    plan = plan_of("UK")
    assert letters(plan) == "AK"
    assert problem_of(plan).startswith("U: torch_pruning is not installed")
    assert "pip install" in plan.problems[0]


def test_a_folder_that_cannot_be_written(plan_of, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*file is a file"):
        plan_of("A", runs=tmp_path / "file" / "runs")
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(InputError, match="you may not write to"):
            plan_of("A", runs=tmp_path / "locked" / "runs")


def test_a_missing_manifest(plan_of, tmp_path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        plan_of("A", manifest=tmp_path / "nowhere.csv")


def test_a_folder_with_another_scale(plan_of) -> None:
    (run,) = plan_of("A").runs
    write_run(run)
    other = problem_of(plan_of("A", scale="size=40,epochs=1,weights=none,batch_size=16"))
    assert "holds a run with other settings (size: 40, not 32)" in other


def test_a_folder_with_another_pruning(plan_of) -> None:
    settings = ["backbone=resnet18"]
    run = plan_of("U", settings=settings).runs[-1]
    write_run(run)
    size = {"parameters": 1, "multiply_adds": 1}
    record = {"config": {**asdict(run.pruning), "images": 7}, "layers": [], "before": size, "after": size}
    (run.folder / "prune.json").write_text(json.dumps(record))
    assert "holds a pruning with other settings (images: 512, not 7)" in problem_of(plan_of("U", settings=settings))


def test_runs_may_be_moved_to_another_folder(plan_of, tmp_path) -> None:
    a, k = plan_of("K").runs
    write_run(a)
    write_run(replace(k, config=replace(k.config, init="/elsewhere/runs/A/seed0")))
    assert [run.state for run in plan_of("K").runs] == ["finished", "finished"]
    assert plan_of("K").problems == ()
