"""``fastccsa compare`` on small finished runs with known results."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from sklearn import metrics

from fastccsa.cli import main
from fastccsa.collections import Manifest
from fastccsa.evaluation import score_outputs
from fastccsa.evaluation.outputs import Outputs, make_outputs
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.folder import OUTPUTS_FILE, VALIDATION_OUTPUTS_FILE, open_run, write_scores

CLASSES = ("nv", "mel", "bcc")
DOMAINS = ("HAM", "MSK")
N = 120
FEW = ("--replicates", "200")
Write = Callable[..., Path]


def compare(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["compare", *map(str, arguments), *FEW])


def outputs(skill: float, seed: int, split: str = "test") -> Outputs:
    random = np.random.default_rng([seed, int(100 * skill)])
    targets, domains = np.arange(N) % 3, np.arange(N) % 2
    logits = random.normal(size=(N, 3)) + skill * np.eye(3)[targets]
    return make_outputs(
        targets, domains, np.arange(N), logits, logits, classes=CLASSES, domain_names=DOMAINS, split=split
    )


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a finished run; all of them share a manifest with lesions of two images."""
    lesions = [f"lesion{i // 6}_{i % 3}" for i in range(N)]
    table = pd.DataFrame(
        {
            "image": [f"{i}.jpg" for i in range(N)],
            "label": [CLASSES[i % 3] for i in range(N)],
            "domain": [DOMAINS[i % 2] for i in range(N)],
            "group": lesions,
            "split": "test",
            "sex": [("female", "male", "")[i % 7 % 3] for i in range(N)],
            "age": [str(20 + i / 2) if i % 11 else "" for i in range(N)],
        }
    )
    Manifest(table, tmp_path).write(tmp_path / "manifest.csv")

    def write(name: str, skill: float, seed: int = 0, validation: bool = True, **settings) -> Path:
        folder = tmp_path / "runs" / name
        manifest = str(tmp_path / "manifest.csv")
        open_run(TrainConfig(manifest=manifest, out=str(folder), seed=seed, **settings))
        found = outputs(skill, seed)
        found.write(folder / OUTPUTS_FILE)
        if validation:
            outputs(skill, seed + 50, "validation").write(folder / VALIDATION_OUTPUTS_FILE)
        write_scores(folder, score_outputs(found))
        return folder

    return write


def records(result: Result) -> dict[tuple[str, str, str, str], dict[str, str]]:
    assert result.exit_code == 0, result.output
    rows = csv.DictReader(io.StringIO(result.stdout))
    return {(row["metric"], row["arm"], row["minus"], row["group"]): row for row in rows}


def test_two_runs(write: Write) -> None:
    one, two = write("weak", 0.5), write("strong", 3.0, seed=4)
    result = compare(one, two)
    assert result.exit_code == 0, result.output
    assert "Macro-average recall, %" in result.stdout
    assert "strong - weak" in result.stdout
    assert "(one seed)" in result.stdout
    assert "200 bootstrap samples of 120 values of the manifest's column 'group'" in result.stdout
    found = records(compare(one, two, "--format", "csv"))
    row = found["recall", "strong", "weak", "several"]
    expected = [float(score_outputs(Outputs.read(path / OUTPUTS_FILE)).average) for path in (two, one)]
    assert float(row["estimate"]) == pytest.approx(expected[0] - expected[1], abs=1e-6)
    assert 0 < float(row["low"]) < float(row["estimate"]) < float(row["high"])
    # Three groups of domains, one run each: the smallest p-value is multiplied by their number.
    differences = [row for key, row in found.items() if key[0] == "recall" and key[2]]
    assert float(min(differences, key=lambda row: float(row["p"]))["p_holm"]) == pytest.approx(
        len(differences) * min(float(row["p"]) for row in differences)
    )


def test_seeds_are_paired(write: Write) -> None:
    for seed in range(3):
        write(f"E/seed{seed}", 0.5, seed)
        write(f"K/seed{seed}", 3.0, seed)
    folder = write("x", 1.0).parent
    found = records(compare(folder / "E", folder / "K", "--format", "csv", "--metrics", "auroc,accuracy"))
    assert {key[0] for key in found} == {"auroc", "accuracy"}
    assert found["auroc", "K", "E", "home"]["seeds"] == "3"
    result = compare(folder / "E", folder / "K", "--against", "K", "--format", "markdown")
    assert "| E - K |" in result.stdout
    assert "| K - E |" not in result.stdout


def test_operating_points_use_the_validation_images(write: Write) -> None:
    with_images, without = write("a", 2.0), write("b", 2.0, validation=False)
    found = records(compare(with_images, without, "--metrics", "all", "--format", "csv"))
    assert ("sensitivity", "a", "", "home") in found
    assert ("sensitivity", "b", "", "home") not in found
    assert ("recall", "b", "a", "home") in found


def test_thresholds_ignore_domains_that_were_left_out(write: Write) -> None:
    """Only MSK's validation images decide if HAM is left out."""
    folder = write("a", 2.0, exclude=("HAM",))
    values = records(compare(folder, "--metrics", "sensitivity", "--format", "csv"))
    validation = Outputs.read(folder / VALIDATION_OUTPUTS_FILE)
    kept = validation.take(validation.domains == 1)
    negatives = np.sort(kept.probabilities[kept.targets != 1, 1])
    threshold = negatives[len(negatives) - 1 - len(negatives) // 10]
    test = Outputs.read(folder / OUTPUTS_FILE)
    here = (test.targets == 1) & (test.domains == 1)
    expected = (test.probabilities[here, 1] > threshold).mean()
    assert float(values["sensitivity", "a", "", "abroad"]["estimate"]) == pytest.approx(expected, abs=1e-6)


def test_each_domain_and_single_images(write: Write) -> None:
    folder = write("a", 1.0)
    result = compare(folder, "--by-domain", "--cluster", "image", "--format", "json")
    found = json.loads(result.stdout)
    assert found["samples"] == "200 bootstrap samples of 120 images, each drawn by itself"
    values = {row["group"]: row["estimate"] for row in found["results"] if row["metric"] == "recall"}
    scores = score_outputs(Outputs.read(folder / OUTPUTS_FILE))
    assert {name: values[name] for name in DOMAINS} == pytest.approx(
        {name: domain.macro_recall for name, domain in scores.domains.items()}, abs=1e-6
    )


def test_subgroups(write: Write) -> None:
    folders = [write("a", 1.0), write("b", 1.5)]
    found = records(compare(*folders, "--by", "sex", "--metrics", "recall,auroc", "--format", "csv"))
    sex = np.array([("female", "male", "unknown")[i % 7 % 3] for i in range(N)])
    for name, folder in zip("ab", folders, strict=True):
        outputs = Outputs.read(folder / OUTPUTS_FILE)
        by_sex = {
            value: (
                metrics.balanced_accuracy_score(outputs.targets[sex == value], outputs.predictions[sex == value]),
                metrics.roc_auc_score(
                    outputs.targets[sex == value], outputs.probabilities[sex == value], multi_class="ovr"
                ),
            )
            for value in np.unique(sex)
        }
        for number, metric in enumerate(("recall", "auroc")):
            for value, expected in by_sex.items():
                assert float(found[metric, name, "", value]["estimate"]) == pytest.approx(expected[number], abs=1e-5)
            values = [each[number] for each in by_sex.values()]
            gap = found[metric, name, "", "gap"]
            assert float(gap["estimate"]) == pytest.approx(max(values) - min(values), abs=1e-5)
            assert float(gap["low"]) < float(gap["estimate"]) < float(gap["high"])
    assert ("recall", "b", "a", "male") in found
    text = compare(*folders, "--by", "sex").stdout
    assert f"female (n={(sex == 'female').sum()})" in text
    assert "Subgroups: the manifest's column 'sex', images of all domains" in text


@pytest.mark.parametrize("column", ["sex", "age"])
def test_subgroups_are_those_of_fairlearn(write: Write, tmp_path: Path, column: str) -> None:
    """Values, counts and the gap, which is Fairlearn's difference between groups."""
    fairlearn = pytest.importorskip("fairlearn.metrics", reason="Fairlearn is not installed")
    folder = write("a", 1.0)
    found = records(compare(folder, "--by", column, "--metrics", "recall,accuracy,auroc_positive", "--format", "csv"))
    outputs = Outputs.read(folder / OUTPUTS_FILE)
    values = pd.read_csv(tmp_path / "manifest.csv", dtype=str)[column].fillna("unknown")
    if column == "age":
        numbers = pd.to_numeric(values, errors="coerce")
        values = pd.qcut(numbers, 4).astype(str).where(numbers.notna(), "unknown")
    truth = {"y_true": outputs.targets, "sensitive_features": values}
    answers = fairlearn.MetricFrame(
        metrics={"recall": metrics.balanced_accuracy_score, "accuracy": metrics.accuracy_score},
        y_pred=outputs.predictions,
        **truth,
    )
    rankings = fairlearn.MetricFrame(
        metrics=metrics.roc_auc_score,
        y_pred=outputs.probabilities[:, 1],
        y_true=outputs.targets == 1,
        sensitive_features=values,
    )
    expected = {
        **{name: answers.by_group[name] for name in ("recall", "accuracy")},
        "auroc_positive": rankings.by_group,
    }
    gaps = {**answers.difference(method="between_groups"), "auroc_positive": rankings.difference()}
    for metric, by_group in expected.items():
        assert len(by_group) == {"sex": 3, "age": 5}[column]
        for group, value in by_group.items():
            assert float(found[metric, "a", "", group]["estimate"]) == pytest.approx(value, abs=1e-5)
        assert float(found[metric, "a", "", "gap"]["estimate"]) == pytest.approx(gaps[metric], abs=1e-5)


def test_net_benefit_stands_beside_acting_on_all_and_on_none(write: Write) -> None:
    folders = [write("a", 1.0), write("b", 2.0, seed=1)]
    keys = "net_benefit_10,net_gain_7.5"
    found = records(compare(*folders, "--metrics", keys, "--positive", "bcc", "--format", "csv"))
    test = Outputs.read(folders[0] / OUTPUTS_FILE)
    shares = [(test.targets[test.domains == domain] == 2).mean() for domain in (0, 1)]
    always = np.mean([share - (1 - share) * 0.1 / 0.9 for share in shares])
    assert float(found["net_benefit_10", "acting on all", "", "several"]["estimate"]) == pytest.approx(always, abs=1e-5)
    assert float(found["net_benefit_10", "acting on none", "", "several"]["estimate"]) == 0
    assert ("net_benefit_10", "b", "a", "home") in found
    assert ("net_gain_7.5", "a", "", "home") in found
    text = compare(*folders, "--metrics", keys, "--positive", "bcc").stdout
    assert "Net benefit of acting from a risk of bcc of 10 % on, per 100 images" in text
    assert "acting on all" in text


def test_a_domain_that_was_left_out_is_told_from_the_others(write: Write) -> None:
    folder = write("a", 2.0, exclude=("MSK",))
    found = records(compare(folder, "--metrics", "unseen_by_confidence", "--format", "csv"))
    test = Outputs.read(folder / OUTPUTS_FILE)
    area = metrics.roc_auc_score(test.domains == 0, test.probabilities.max(1))
    assert float(found["unseen_by_confidence", "a", "", "unseen"]["estimate"]) == pytest.approx(area, abs=1e-5)
    assert ("unseen_by_confidence", "a", "", "home") not in found
    # A baseline on the primary domain has seen no other.
    only = write("b", 2.0, n_sec=0, alignment="-")
    found = records(compare(only, "--metrics", "unseen_by_confidence", "--format", "csv"))
    assert ("unseen_by_confidence", "b", "", "abroad") in found


def test_numbers_form_bands_in_their_order(write: Write) -> None:
    result = compare(write("a", 1.0), "--by", "age", "--metrics", "recall", "--format", "markdown")
    head = next(line for line in result.stdout.splitlines() if line.startswith("| run"))
    titles = [cell.strip() for cell in head.strip("|").split("|")][1:]
    ages = np.array([20 + i / 2 for i in range(N) if i % 11])
    edges = np.quantile(ages, [0.25, 0.5, 0.75])
    counts = np.bincount(np.searchsorted(edges, ages)).tolist()
    assert [title.rpartition("n=")[2].rstrip(")") for title in titles] == [*map(str, counts), str(N - len(ages)), "gap"]
    lows = [title.strip("(").split(",")[0] for title in titles[:4]]
    assert [float(low) for low in lows] == pytest.approx([ages.min(), *edges], abs=0.01)
    assert titles[4].startswith("unknown")


def test_a_manifest_that_is_gone_or_changed_is_said(write: Write) -> None:
    folder = write("a", 1.0, manifest_sha256="0")
    assert "changed, so that images of one lesion count as independent" in compare(folder).stdout
    (folder.parents[1] / "manifest.csv").unlink()
    assert "is not here, so that images of one lesion count as independent" in compare(folder).stdout
    assert "subgroups need the manifest of" in compare(folder, "--by", "sex").stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--metrics", "recall,f2"), "--metrics: 'f2' is not among recall, accuracy"),
        (("--positive", "scc"), "--positive: 'scc' is not among the classes nv, mel, bcc"),
        (("--against", "z"), "--against: z is not among the runs a, b"),
        (("--cluster", "patient"), "has no column 'patient'; it has image, label"),
        (("--by", "site"), "has no column 'site'; it has image, label"),
        (("--by", "image"), "column 'image' has 120 values in the test images, too many for a table; 20 is the most"),
        (("--by", "sex", "--by-domain"), "give --by or --by-domain"),
    ],
)
def test_bad_options(write: Write, options: tuple[str, ...], message: str) -> None:
    result = compare(write("a", 1.0), write("b", 1.0), *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_runs_that_cannot_be_compared(write: Write, tmp_path: Path) -> None:
    a, b = write("a", 1.0), write("b", 1.0)
    assert "is given twice" in compare(a, a).stderr
    assert "no folder at" in compare(tmp_path / "none").stderr
    write("K/seed0", 1.0, 0)
    write("K/seed1", 1.0, 1)
    write("E/seed2", 1.0, 2)
    write("E/seed3", 1.0, 3)
    runs = a.parent
    assert "E has the seeds 2, 3 and K 0, 1: only equal seeds can be paired" in compare(runs / "K", runs / "E").stderr
    assert "holds several arms" in compare(runs).stderr
    (b / OUTPUTS_FILE).unlink()
    assert "has no test_outputs.safetensors" in compare(a, b).stderr
