"""The study of the method's parts: its arms, its plan, a small run of it, and its report on runs with known results."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from benchmarks.method import parse_arms, plan_arms
from benchmarks.method_report import as_markdown, report_method
from fastccsa import training
from fastccsa.cli import main
from fastccsa.evaluation import Outputs, Selection, score_outputs
from fastccsa.evaluation.outputs import make_outputs
from fastccsa.experiments.scale import parse_scale, parse_settings
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.folder import OUTPUTS_FILE, open_run, write_metrics, write_scores
from fastccsa.system.errors import InputError

CLASSES = ("nv", "mel", "bcc")
SCALE = "size=32,epochs=1,weights=none,batch_size=16"
SETTINGS = ("backbone=shufflenet_v2_x0_5", "workers=1")


@pytest.fixture(scope="module")
def manifest(draw_collections) -> Path:
    return draw_collections(dict.fromkeys(("HAM", "MSK", "UDA"), CLASSES) | {"SON": ("nv",)}, 5)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["bench", "method", *arguments])


# Arms and the plan


def test_arms_are_named_or_defined_and_the_start_is_added() -> None:
    arms = parse_arms("S,strong=lr:1e+3+margin:12,E")
    assert [arm.name for arm in arms] == ["A", "S", "strong", "E"]
    assert arms[2].settings == {"lr": 1000.0, "margin": 12.0}
    assert [arm.name for arm in parse_arms("E")] == ["E"]
    assert [arm.name for arm in parse_arms("own=alignment:-")] == ["own"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("B", "'B' is neither one of A, E, S, K nor name=key:value"),
        ("../x=lr:1", "'../x=lr:1' is neither"),
        ("K=lr:1", "'K' is defined twice"),
        ("K,K", "'K' is defined twice"),
        ("x=colour:red", "'colour=red' is not key=value"),
        ("x=lr:high", "lr cannot be 'high'"),
    ],
)
def test_bad_arms(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_arms(text)


def test_the_plan(manifest: Path, tmp_path: Path) -> None:
    """Each arm has its settings, those of the command, and the left-out domain of its seed."""
    settings = parse_settings([*SETTINGS, "margin=7", "clip=2"])
    arms = parse_arms("A,E,S,K,near=margin:3+epochs:4")
    scale = parse_scale(SCALE + ",baseline_epochs=2")
    plan = plan_arms(arms, 3, manifest, tmp_path / "runs", scale, settings, ["MSK", "UDA"])
    names = [f"{arm}/seed{seed}" for seed in range(3) for arm in ("A", "E", "S", "K", "near")]
    assert [run.folder for run in plan.runs] == [tmp_path / "runs" / name for name in names]
    by_name = dict(zip(names, plan.runs, strict=True))
    for name, run in by_name.items():
        config = run.config
        assert config.exclude == (("MSK",), ("UDA",), ("MSK",))[config.seed]
        assert (config.clip, config.size, config.seed) == (2, 32, int(name[-1]))
        is_baseline = name[0] in "AE"
        assert config.is_baseline == is_baseline
        start = None if is_baseline else tmp_path / "runs" / "A" / f"seed{config.seed}"
        assert (run.init, config.init) == (start, start and str(start))
    configs = {name.partition("/")[0]: run.config for name, run in by_name.items() if name.endswith("0")}
    assert {name: config.n_sec for name, config in configs.items()} == {
        "A": 0, "E": "all", "S": "all", "K": "all", "near": "all",
    }  # fmt: skip
    assert [configs[name].epochs for name in configs] == [2, 2, 1, 1, 4]
    assert configs["K"].differences(configs["S"]) == [f"alpha: {TrainConfig().alpha}, not 0.0"]
    assert (configs["K"].margin, configs["near"].margin) == (7, 3)
    assert [by_name[f"{name}/seed0"].training for name in ("A", "E")] == [15, 35]


def test_nothing_is_left_out_without_the_option(manifest: Path, tmp_path: Path) -> None:
    plan = plan_arms(parse_arms("E"), 2, manifest, tmp_path, parse_scale(SCALE), {})
    assert [run.config.exclude for run in plan.runs] == [(), ()]


def test_an_impossible_run_is_named(manifest: Path, tmp_path: Path) -> None:
    for domain, reason in (("HAM", "the primary domain HAM cannot be excluded"), ("PH2", "'PH2' is not in")):
        with pytest.raises(InputError, match=f"arm E, seed 1: .*{reason}"):
            plan_arms(parse_arms("E"), 2, manifest, tmp_path, parse_scale(SCALE), {}, ["MSK", domain])


# A run of the command


@pytest.fixture(scope="module")
def command(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    out = tmp_path_factory.mktemp("study") / "runs"
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    where = ["--manifest", str(manifest), "--out", str(out), "--leave-out", "MSK,UDA", "--device", "cpu"]
    return [*where, *settings, "--arms", "S,near=alpha:0.1+margin:3", "--seeds", "2", "--scale", SCALE]


@pytest.fixture(scope="module")
def first_run(command: list[str]) -> Result:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    result = invoke(*command)
    torch.set_num_threads(threads)
    assert result.exit_code == 0, result.output
    return result


def test_the_command_trains_all_arms_and_reports_them(command: list[str], first_run: Result) -> None:
    folder = Path(command[3])
    assert len(list(folder.glob("*/seed?/scores.json"))) == 6
    found = json.loads((folder / "method.json").read_text())
    assert [row["arm"] for row in found["scores"]] == ["A", "S", "near"]
    assert [(row["arm"], row["minus"]) for row in found["differences"]] == [("near", "S"), ("S", "A"), ("near", "A")]
    assert [row["about"] for row in found["arms"]][-1] == "margin 3.0, alpha 0.1"
    assert found["domains"]["1"]["unseen"] == ["UDA"]
    for row in found["scores"]:
        low, high = np.array(list(row.values())[1:])[:, 1:3].T
        assert (low <= high).all()
    assert "| near - S | 2 | " in first_run.output


def test_finished_runs_are_kept(command: list[str], first_run: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []

    def train(config: TrainConfig) -> None:
        trained.append(config.out)
        raise InputError("the disk is full")

    monkeypatch.setattr(training, "train", train, raising=False)
    again = invoke(*command)
    assert (trained, again.exit_code) == ([], 0)
    tables = first_run.output[first_run.output.index("Macro-average") :]
    assert again.output.endswith(tables)
    assert invoke("--report", command[3]).output == tables
    more = invoke(*command, "--seeds", "3")
    assert [Path(out).parts[-2:] for out in trained] == [("A", "seed2")]
    assert more.exit_code == 1
    assert "A seed 2: the disk is full" in more.stderr
    assert more.output.endswith(tables) or tables in more.output


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "give --manifest and --out to run the arms, or --report"),
        (["--report", "{empty}"], "no finished run in"),
        (["--manifest", "{manifest}", "--out", "{empty}", "--arms", "X"], "arms: 'X' is neither"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], part: str, tmp_path: Path, manifest: Path) -> None:
    result = invoke(*(argument.format(empty=tmp_path, manifest=manifest) for argument in arguments))
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert part in line


# The report on runs with known results

NAMES = ("HAM", "MSK", "UDA", "SON")
Runs = Callable[..., Outputs]


@pytest.fixture
def finished(tmp_path: Path) -> Runs:
    """Write a finished run: 8 test images of each class and domain, a given number of them right in each."""

    def write(arm: str, seed: int, right: Mapping[str, int], rows: int = 0, **settings) -> Outputs:
        cells = [(d, c) for d, name in enumerate(NAMES) for c in range(3 if name != "SON" else 1)]
        domains, targets = np.repeat(cells, 8, axis=0).T
        number = np.tile(np.arange(8), len(cells))
        is_right = number < np.array([right[NAMES[d]] for d in domains])
        logits = np.eye(3)[np.where(is_right, targets, (targets + 1) % 3)]
        random = np.random.default_rng(seed)
        outputs = make_outputs(
            targets, domains, np.arange(rows, rows + len(targets)), logits, 10 * random.normal(size=(len(targets), 5)),
            classes=CLASSES, domain_names=NAMES, split="test",
        )  # fmt: skip
        config = TrainConfig(out=str(tmp_path / arm / f"seed{seed}"), seed=seed, epochs=3, **settings)
        folder = open_run(config)
        outputs.write(folder / OUTPUTS_FILE)
        terms = {"loss": 4.0} | ({} if config.is_baseline else {"alignment": 1.5, "separation": 0.5})
        epoch = {"validation": {}, "validation_recall": 0.5, "seconds": 30.0, "images_per_second": 9.0, **terms}
        write_metrics(folder, [{"epoch": number, **epoch, "loss": 99.0 * (number < 2) + 4.0} for number in (1, 2)])
        scores = score_outputs(outputs)
        write_scores(folder, type(scores)("test", CLASSES, scores.domains, Selection("highest", 1 + seed, 0.5)))
        return outputs

    return write


BASELINE = {"alignment": "-", "n_sec": 0}


@pytest.fixture
def study(finished: Runs, tmp_path: Path) -> Path:
    """K is better than A by one image in 8 per cell at home, and by more elsewhere; seed 1 leaves UDA out, not MSK."""
    for seed, unseen in enumerate(("MSK", "UDA")):
        finished("A", seed, {"HAM": 4, "MSK": 2, "UDA": 3, "SON": 0}, exclude=(unseen,), **BASELINE)
        finished("K", seed, {"HAM": 5, "MSK": 5, "UDA": 7, "SON": 8}, exclude=(unseen,), alpha=0.5)
    return tmp_path


def test_recalls_and_differences_by_group(study: Path) -> None:
    found = report_method(study, ["A"], {"A": "first", "K": "second"})
    assert found["domains"][0] == {
        "home": ["HAM"], "abroad": ["UDA"], "unseen": ["MSK"],
        "several": ["HAM", "MSK", "UDA"], "all": ["HAM", "MSK", "UDA", "SON"],
    }  # fmt: skip
    assert (found["domains"][1]["abroad"], found["domains"][1]["unseen"]) == (["MSK"], ["UDA"])
    estimates = {"home": 5, "abroad": (7 + 5) / 2, "unseen": (5 + 7) / 2, "several": 17 / 3, "all": 25 / 4}
    less = {"home": 1, "abroad": 3.5, "unseen": 3.5, "several": 8 / 3, "all": 4}
    scores, (difference,) = {row["arm"]: row for row in found["scores"]}, found["differences"]
    for group, eighths in estimates.items():
        estimate, low, high, seeds = scores["K"][group]
        assert estimate == pytest.approx(100 * eighths / 8, abs=0.01)
        assert low < estimate < high
        assert seeds == 2
        assert difference[group][0] == pytest.approx(100 * less[group] / 8, abs=0.01)
        assert difference[group][1] < difference[group][0] < difference[group][2]
    # At home 3 of 24 images differ, the same ones for both seeds: the spread of their share, 1/8, is binomial.
    spread = 100 * np.sqrt(1 / 8 * 7 / 8 / 24)
    assert difference["home"][2] - difference["home"][1] == pytest.approx(2 * 1.96 * spread, rel=0.2)


def test_facts_about_an_arm(study: Path, finished: Runs) -> None:
    outputs = [finished("K", seed, dict.fromkeys(NAMES, 5), exclude=(name,), alpha=0.5)
               for seed, name in enumerate(("MSK", "UDA"))]  # fmt: skip
    a, k = report_method(study, [], {"A": "first"})["arms"]
    medians = []
    for each in outputs:
        distances = {True: [], False: []}
        features = each.features.astype(float)
        for i in range(len(each)):
            for j in range(i):
                if each.domains[i] != each.domains[j]:
                    same = each.targets[i] == each.targets[j]
                    distances[bool(same)].append(np.linalg.norm(features[i] - features[j]))
        medians.append([np.median(distances[True]), np.median(distances[False])])
    assert [k["same"], k["different"]] == pytest.approx(np.mean(medians, axis=0), abs=0.01)
    assert (a["about"], a["alignment_share"]) == ("first", None)
    assert k["alignment_share"] == pytest.approx(0.5 * (1.5 + 0.5) / 4)
    assert (k["selected_epochs"], k["epochs"], k["minutes"], k["seeds"]) == ([1, 2], [2], 1.0, 2)


def test_an_arm_with_fewer_seeds_is_compared_on_those(study: Path, finished: Runs) -> None:
    """Seed 0 alone has the other arm, so that the domain abroad is UDA; the intervals say that there is one seed."""
    finished("near", 0, {"HAM": 5, "MSK": 5, "UDA": 6, "SON": 8}, exclude=("MSK",), margin=3.0, alpha=0.5)
    found = report_method(study, ["K", "absent"], {"A": "first", "K": "second"})
    ((near),) = [row for row in found["differences"] if row["arm"] == "near"]
    assert near["abroad"][0] == pytest.approx(-100 / 8)
    assert near["abroad"][3] == 1
    assert near["home"][:3] == [0, 0, 0]
    assert found["arms"][-1]["about"] == "margin 3.0"
    text = as_markdown(found)
    assert "| near - K | 1 | +0.0 [+0.0, +0.0] (one seed) | -12.5 [" in text
    assert "Seen abroad: UDA (seed 0); MSK (seed 1)." in text
    *_, more = report_method(study, ["near"], {"near": "third"})["differences"]
    assert (more["arm"], more["minus"], more["home"][3]) == ("K", "near", 1)


def test_without_a_left_out_domain_there_is_no_such_column(finished: Runs, tmp_path: Path) -> None:
    finished("A", 0, dict.fromkeys(NAMES, 4), **BASELINE)
    found = report_method(tmp_path, ["A"], {})
    assert found["scores"][0]["unseen"] is None
    assert found["differences"] == []
    assert "| arm | seeds | home | seen abroad | mean, several classes | mean, all domains |" in as_markdown(found)


def test_arms_that_leave_out_different_domains_cannot_be_compared(study: Path, finished: Runs) -> None:
    finished("x", 1, dict.fromkeys(NAMES, 4), exclude=("MSK",))
    with pytest.raises(InputError, match="the arms of seed 1 leave out different domains"):
        report_method(study, ["A"], {})


def test_runs_with_other_test_images_cannot_be_compared(study: Path, finished: Runs) -> None:
    finished("x", 1, dict.fromkeys(NAMES, 4), rows=5, exclude=("UDA",))
    with pytest.raises(InputError, match=r"A/seed0 and .*x/seed1 test different images"):
        report_method(study, ["A"], {"A": "first"})
