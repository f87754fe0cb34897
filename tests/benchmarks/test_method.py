"""The study of the method's parts: its arms, its plan, and a small run of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from benchmarks import method
from benchmarks.method import parse_arms, plan_arms
from fastccsa import training
from fastccsa.cli import main
from fastccsa.experiments.plan import PlannedRun
from fastccsa.experiments.scale import parse_scale, parse_settings
from fastccsa.runs.config import TrainConfig
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
        ("B", "'B' is neither one of A, E, S, K, authors, .* nor name=key:value"),
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


def test_repeated_arms_come_after_all_seeds_of_the_ones_before(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[PlannedRun] = []
    monkeypatch.setattr(method, "execute", lambda runs, slots: planned.extend(runs) or {})
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    where = ["--manifest", str(manifest), "--out", str(tmp_path / "runs"), "--scale", SCALE, *settings]
    invoke(*where, "--seeds", "2", "--arms", "A,K", "--arms", "S,near=margin:3", "--device", "cpu")
    assert [run.name for run in planned] == [
        f"{arm} seed {seed}" for arms in (("A", "K"), ("S", "near")) for seed in (0, 1) for arm in arms
    ]
    twice = invoke(*where, "--arms", "A,K", "--arms", "K")
    assert "'K' is defined twice" in twice.stderr


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
    found = json.loads((folder / "arms.json").read_text())
    assert [row["arm"] for row in found["scores"]] == ["A", "S", "near"]
    assert [(row["arm"], row["minus"]) for row in found["differences"]] == [("near", "S"), ("S", "A"), ("near", "A")]
    assert [row["about"] for row in found["arms"]][-1] == "alpha 0.1, margin 3.0"
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
