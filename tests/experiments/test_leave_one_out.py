"""Named algorithms as experiments, every domain left out in turn, and the rules of selection compared on them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from fastccsa.cli import main
from fastccsa.data import Manifest
from fastccsa.evaluation import Candidate, Scores, Selection
from fastccsa.evaluation.scores import DomainScores
from fastccsa.experiments import EXPERIMENTS, Scale
from fastccsa.experiments import selection_rules as rules_module
from fastccsa.experiments.leave_one_out import algorithm_rows, leave_out, with_paper, without
from fastccsa.experiments.selection_rules import describe_scores, scores_on_left_out
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.selection import oracle
from fastccsa.system.errors import InputError

SMALL = (
    "--scale", "size=32,epochs=2,weights=none,batch_size=16", "--set", "backbone=shufflenet_v2_x0_5",
    "--set", "workers=1", "--device", "cpu",
)  # fmt: skip


def run(manifest: Path, out: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["experiment", "--manifest", str(manifest), "--out", str(out), *SMALL, *arguments])


@pytest.fixture
def images(manifest_csv) -> Manifest:
    return Manifest.read(manifest_csv)


# Which runs there are


def test_algorithms_are_planned_beside_letters(plan_of) -> None:
    rows = algorithm_rows(["coral", "ccsa"])
    plan = plan_of(["E", "coral", "ccsa"], rows=with_paper(rows))
    assert [run.row.letter for run in plan.runs] == ["A", "E", "coral", "ccsa"]
    configs = {run.row.letter: run.config for run in plan.runs}
    assert (configs["coral"].algorithm, configs["coral"].init, configs["coral"].n_sec) == ("coral", None, "all")
    assert configs["ccsa"].init == configs["ccsa"].out.replace("ccsa", "A")
    assert configs["E"].differences(configs["coral"])[0] == "algorithm: 'auto', not 'coral'"
    assert plan.runs[2].folder.parts[-2:] == ("coral", "seed0")


def test_every_domain_that_allows_it_is_left_out(images) -> None:
    found = leave_out([EXPERIMENTS["K"], *algorithm_rows(["mmd"])], None, images, Scale(), {})
    names = [f"{row}-without-{domain}" for domain in ("DMF", "UDA", "SON") for row in ("K", "mmd")]
    assert [row.letter for row in found.rows] == names
    assert [row.settings["exclude"] for row in found.rows[::2]] == [("DMF",), ("UDA",), ("SON",)]
    assert found.skipped == {"HAM": "the primary domain HAM cannot be excluded: name another primary domain"}
    assert all(row.settings["score_epochs"] for row in found.rows)
    assert found.rows[1].settings["algorithm"] == "mmd"


def test_every_pair_is_left_out_too_if_selection_needs_it(images) -> None:
    found = leave_out([EXPERIMENTS["E"]], ["DMF", "UDA"], images, Scale(), {}, nested=True)
    assert [row.letter for row in found.rows] == ["E-without-DMF", "E-without-UDA", "E-without-DMF+UDA"]
    assert found.rows[2].settings["exclude"] == ("DMF", "UDA")
    # CCSA needs a secondary domain to train on: nothing is left of the pairs that leave none.
    both = leave_out([EXPERIMENTS["K"]], None, images, Scale(), {"exclude": ("SON",)}, nested=True)
    assert [row.letter for row in both.rows] == ["K-without-DMF", "K-without-UDA"]
    assert "SON" in both.skipped


def test_without_excludes_it_in_addition_to_what_all_runs_exclude(plan_of) -> None:
    row = without(EXPERIMENTS["E"], ["UDA"])
    (planned,) = plan_of([row.letter], rows=with_paper([row]), settings=["exclude=SON"]).runs
    # Two images per class: validation of HAM and DMF; all test images, and validation images of UDA and SON.
    assert (planned.validation, planned.test, planned.watched) == (12, 20, 20 + 6 + 2)
    assert planned.images_to_score == 12 + 28 + 20
    assert planned.config.exclude == ("UDA", "SON")
    assert planned.config.score_epochs


@pytest.mark.parametrize(
    ("letter", "domains", "message"),
    [
        ("A", None, "experiment A trains without the secondary domains"),
        ("O", None, "experiment O leaves DMF out already"),
        ("U", None, "experiment U is pruned"),
        ("K", ["MSK"], "MSK cannot be left out: the manifest has only HAM, DMF, UDA, SON"),
        ("K", ["HAM"], "HAM cannot be left out: the primary domain HAM cannot be excluded"),
    ],
)
def test_what_cannot_be_left_out(images, letter: str, domains: list[str] | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        leave_out([EXPERIMENTS[letter]], domains, images, Scale(), {})


def test_a_name_that_cannot_be_a_folder_s(images) -> None:
    table = images.table.copy()
    table["domain"] = table["domain"].replace({"DMF": "../DMF"})
    found = leave_out([EXPERIMENTS["E"]], None, Manifest(table, images.folder), Scale(), {})
    assert "its name cannot be part of a folder's" in found.skipped["../DMF"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["coral", "vrex"], "no algorithm 'vrex': choose from ccsa, erm"),
        (["mmd", "mmd"], "mmd is given twice"),
    ],
)
def test_unknown_algorithms(names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        algorithm_rows(names)


# What the rules choose

# Recalls after each of four epochs of the run that leaves out T, and of those that leave out T with D or with S.
TESTED = [0.1, 0.2, 0.3, 0.4]
UNSEEN = [0.3, 0.9, 0.2, 0.9]
WITH_D = [0.0, 0.3, 0.8, 0.5]
WITH_S = [1.0, 0.5, 0.0, 0.0]


def history(test: list[float], **unseen: list[float]) -> tuple[dict, ...]:
    return tuple(
        {"test": {"T": value}, "unseen": {name: each[epoch] for name, each in unseen.items()}}
        for epoch, value in enumerate(test)
    )


def scores_with(recall: float, classes: Mapping[str, int]) -> Scores:
    def domain(count: int) -> DomainScores:
        known: tuple[float | None, ...] = (recall,) * count + (None,) * (2 - count)
        return DomainScores(4, recall, known, ((2, 0), (0, 2)))

    chosen = Selection("rule", 4, 0.5, {"paper": Candidate(1, 0.5)}, Candidate(4, 0.5))
    return Scores("test", ("a", "b"), {name: domain(count) for name, count in classes.items()}, chosen)


@pytest.fixture
def plan_with(monkeypatch):
    """Make finished runs of an experiment from their histories, by the domains left out and the seed."""

    def make(found: Mapping[tuple[str, ...], tuple[dict, ...]], classes: Mapping[str, int], **settings):
        runs, planned = {}, []
        for seed in (0, 1):
            for left_out, records in found.items():
                folder = Path("runs", "+".join(left_out), str(seed))
                config = TrainConfig(algorithm="erm", **settings)
                own = SimpleNamespace(history=records, scores=scores_with(0.4 + 0.2 * seed, classes), config=config)
                runs[folder] = SimpleNamespace(runs=[own])
                row = without(EXPERIMENTS["E"], left_out)
                planned.append(SimpleNamespace(row=row, seed=seed, folder=folder, is_finished=True))
        monkeypatch.setattr(rules_module, "read_runs", runs.__getitem__)
        return planned

    return make


@pytest.mark.parametrize(("classes_of_s", "chosen"), [(1, 3), (2, 1)])
def test_the_three_rules(plan_with, classes_of_s: int, chosen: int) -> None:
    """Of the domains left out as well, one with a single class does not count."""
    found = {
        ("T",): history(TESTED, T=UNSEEN),
        ("T", "D"): history(TESTED, T=UNSEEN, D=WITH_D),
        ("S", "T"): history(TESTED, T=UNSEEN, S=WITH_S),
    }
    scores = scores_on_left_out(plan_with(found, {"T": 2, "D": 2, "S": classes_of_s}))
    assert [(score.rule, score.epoch, score.recall) for score in scores if score.seed == 0] == [
        ("training", 4, 0.4),
        ("leave_one_out", chosen, TESTED[chosen - 1]),
        ("oracle", 2, 0.2),
    ]
    text = describe_scores(scores)
    assert "| E | 50.0 ± 10.0 | 50.0 ± 10.0 |" in text  # 40 and 60
    assert "| E | 20.0 ± 0.0 | 20.0 ± 0.0 |" in text.split("CHEATS")[1]


def test_a_run_without_scores_of_epochs_has_only_its_own_rule(plan_with) -> None:
    scores = scores_on_left_out(plan_with({("T",): ({"validation": {}},) * 4}, {"T": 2}))
    assert {score.rule for score in scores} == {"training"}
    assert describe_scores(scores).count("Not recorded.") == 2


def test_swad_is_the_same_under_every_rule(plan_with) -> None:
    """It selects no epoch, and the recorded scores are those of single epochs."""
    scores = scores_on_left_out(plan_with({("T",): history(TESTED, T=UNSEEN)}, {"T": 2}, average="swad"))
    assert {(score.rule, score.recall) for score in scores if score.seed == 0} == {("training", 0.4), ("oracle", 0.4)}


def test_domains_with_one_class_are_not_in_the_mean(plan_with) -> None:
    found = {("T",): history(TESTED, T=UNSEEN), ("S",): ()}
    text = describe_scores(scores_on_left_out(plan_with(found, {"T": 2, "S": 1})))
    assert "The mean is over the domains with several classes, without S." in text
    assert "| experiment | T | S | mean |" in text


def test_the_oracle_takes_the_first_of_the_best() -> None:
    assert oracle([{"unseen": {"T": x, "U": 0.5}} for x in UNSEEN]) == (2, pytest.approx(0.7))
    assert oracle([{"unseen": {"T": 0.5}}, {}]) is None


# A run of the command


def test_the_command_leaves_domains_out_and_compares_the_rules(manifest_csv, tmp_path) -> None:
    out = tmp_path / "runs"
    arguments = ["--algorithm", "coral", "--leave-one-out", "DMF,UDA", "--nested"]
    result = run(manifest_csv, out, *arguments)
    assert result.exit_code == 0, result.output
    folders = {path.parent.parent.name for path in out.glob("*/seed0/scores.json")}
    assert folders == {"coral-without-DMF", "coral-without-UDA", "coral-without-DMF+UDA"}
    records = [json.loads(line) for line in (out / "coral-without-DMF/seed0/metrics.jsonl").read_text().splitlines()]
    assert [set(record["unseen"]) for record in records] == [{"DMF"}] * 2
    assert [set(record["test"]) for record in records] == [{"HAM", "DMF", "UDA", "SON"}] * 2
    assert set(records[0]["validation"]) == {"HAM", "UDA", "SON"}
    scores = Scores.read(out / "coral-without-DMF/seed0/scores.json")
    assert scores.selection is not None
    chosen = records[scores.selection.epoch - 1]["test"]
    assert {name: domain.macro_recall for name, domain in scores.domains.items()} == pytest.approx(chosen)
    cheating = scores.selection.choices["oracle (cheats)"]
    assert cheating.recall == max(record["unseen"]["DMF"] for record in records)

    rows = json.loads((out / "left_out.json").read_text())
    assert [(row["domain"], row["rule"]) for row in rows] == [
        (domain, rule) for domain in ("DMF", "UDA") for rule in ("training", "leave_one_out", "oracle")
    ]
    assert rows[0]["recall"] == scores.domains["DMF"].macro_recall
    assert "which CHEATS" in result.output
    assert "| experiment | DMF | UDA | mean |" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name experiments by their letters, or all of them with --all, or algorithms with --algorithm"),
        (["--all", "--leave-one-out", "all"], "--leave-one-out takes experiments by their letters"),
        (["K", "--nested"], "--nested has no effect without --leave-one-out"),
        (["--algorithm", "x"], "there is no algorithm 'x'"),
    ],
)
def test_bad_arguments(manifest_csv, tmp_path, arguments: list[str], message: str) -> None:
    result = run(manifest_csv, tmp_path / "runs", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
