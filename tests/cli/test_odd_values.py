"""Odd values of every option of every command: each gets one line and status 2, or is a value like any other."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from fastccsa.cli import main
from fastccsa.cli.main import SUMMARIES
from fastccsa.cli.train import train_command

NUMBERS = ("nan", "inf", "-inf", "1e20", "1" + 20 * "0", "1" + 12 * "0", "-1" + 12 * "0")
EMPTY = ("", " ", "\t")

# What each command needs besides the option under test; {…} are files of the test.
REQUIRED = {
    "prepare": ["--folders", "{images}", "--out", "{new}/manifest.csv"],
    "render": ["--out", "{new}"],
    "preview": ["--manifest", "{manifest}", "--out", "{new}/pairs.png"],
    "train": ["--manifest", "{manifest}", "--out", "{new}", "--weights", "none"],
    "sweep": ["--manifest", "{manifest}", "--out", "{new}", "--vary", "lr=1e-4,1e-3"],
    "evaluate": ["--run", "{new}"],
    "experiment": ["A", "--manifest", "{manifest}", "--out", "{new}", "--dry-run"],
    "prune": ["--run", "{new}", "--out", "{new}2", "--rate", "0.5"],
    "export": ["--run", "{new}", "--onnx", "{new}/a.onnx"],
    "latency": ["{manifest}"],
    "report": ["{new}"],
    "compare": ["{new}"],
    "demo": ["--out", "{new}"],
}
# Some large values are possible: a seed of twelve zeros is a seed, as its type says.
POSSIBLE = {
    ("preview", "--seed", "1" + 12 * "0"),
    ("train", "--seed", "1" + 12 * "0"),
    ("prune", "--seed", "1" + 12 * "0"),
}


def options() -> Iterator[tuple[str, click.Option]]:
    for name in SUMMARIES:
        if name in ("bench", "check"):  # without options of their own
            continue
        command = getattr(importlib.import_module(f"fastccsa.cli.{name}"), f"{name}_command")
        for parameter in command.params:
            of_train = name == "sweep" and parameter in train_command.params  # the same object
            if isinstance(parameter, click.Option) and not parameter.is_flag and not of_train:
                yield name, parameter


def is_number(option: click.Option) -> bool:
    return isinstance(option.type, click.types.IntParamType | click.types.FloatParamType) or option.name == "n_sec"


NUMERIC = [(name, option.opts[0]) for name, option in options() if is_number(option)]
ALL = [(name, option.opts[0], option.nargs) for name, option in options()]


@pytest.fixture
def arguments(manifest_csv: Path, tmp_path: Path):
    """Return the arguments that a command needs, besides those of an option that is given anyway."""

    def required(command: str, without: str) -> list[str]:
        words = iter(REQUIRED[command])
        found: list[str] = []
        for word in words:
            if word == without:
                next(words)
            elif not (without == "--threshold" and word == "--rate" and next(words)):
                found.append(word.format(images=manifest_csv.parent, manifest=manifest_csv, new=tmp_path / "new"))
        return found

    return required


def assert_one_line(result: Result) -> None:
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("fastccsa: error: ")
    assert "Traceback" not in result.output


def test_the_sweep_covers_every_command_with_options() -> None:
    assert len(NUMERIC) > 50
    assert {name for name, _, _ in ALL} == set(SUMMARIES) - {"bench", "check"}
    assert {name for name, _ in NUMERIC} == {name for name, _, _ in ALL} - {"report"}


@pytest.mark.parametrize("value", NUMBERS)
@pytest.mark.parametrize(("command", "option"), NUMERIC)
def test_an_odd_number_is_one_line(command: str, option: str, value: str, arguments, tmp_path: Path) -> None:
    if (command, option, value) in POSSIBLE:
        pytest.skip("a number like any other")
    result = CliRunner().invoke(main, [command, *arguments(command, option), f"{option}={value}"])
    assert_one_line(result)
    name = option.removeprefix("--")
    assert option in result.stderr or name in result.stderr or name.replace("-", "_") in result.stderr
    assert not (tmp_path / "new").exists(), "the command began"


@pytest.mark.parametrize("value", EMPTY)
@pytest.mark.parametrize(("command", "option", "words"), ALL)
def test_an_empty_value_is_one_line(
    command: str, option: str, words: int, value: str, arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [option, *["int8"] * (words - 1), value] if words > 1 else [option, value]
    for way in (given, [f"{option}={value}"]) if words == 1 else (given,):
        result = CliRunner().invoke(main, [command, *arguments(command, option), *way])
        assert_one_line(result)
        assert "is empty: give a value, or omit it" in result.stderr
        assert words > 1 or option in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["report", "experiment"])
def test_an_empty_argument_is_one_line(command: str, manifest_csv: Path) -> None:
    more = ["--manifest", str(manifest_csv)] if command == "experiment" else []
    result = CliRunner().invoke(main, [command, "", *more])
    assert_one_line(result)
    assert "an argument is empty" in result.stderr


@pytest.mark.parametrize(
    ("command", "given", "said"),
    [
        ("train", "--alignment - --n-sec 0 --margin 2", "--margin has no effect with --alignment -"),
        ("train", "--alignment - --pairs all", "--pairs has no effect with --alignment -"),
        ("train", "--alignment - --match-probability 0.5", "--match-probability has no effect"),
        ("train", "--alignment u --pair-weight-cap 3", "--pair-weight-cap has no effect with --alignment u"),
        ("train", "--classification-weight u --class-weight-scale max", "--class-weight-scale has no effect"),
        ("train", "--init {new} --weights imagenet", "--weights has no effect with --init"),
        ("train", "--n-sec 0", "n_sec 0 leaves no secondary domain to align"),
        ("train", "--memory 64", "memory 64 needs pairs all"),
        ("train", "--primary HAM --exclude HAM", "the primary domain HAM cannot be excluded"),
        ("prune", "--threshold 0.1 --rate 0.5", "give either a threshold or a rate"),
        ("prune", "--rate 0.5 --stop fall", "--stop has no effect with --rate"),
        ("prune", "", "give either a threshold or a rate"),
        ("experiment", "A --all", "or all of them with --all"),
        ("experiment", "", "name experiments by their letters"),
        ("export", "", "nothing to write"),
        ("prepare", "", "nothing to prepare"),
        ("demo", "--unseen HAM", "HAM"),
        ("demo", "--unseen XYZ", "XYZ"),
    ],
)
def test_a_contradiction_is_one_line(command: str, given: str, said: str, manifest_csv: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    needed = {
        "train": ["--manifest", str(manifest_csv), "--out", str(new)],
        "prune": ["--run", str(tmp_path / "a"), "--out", str(new)],
        "experiment": ["--manifest", str(manifest_csv), "--out", str(new)],
        "export": ["--run", str(new)],
        "demo": ["--out", str(new)],
    }
    result = CliRunner().invoke(main, [command, *needed.get(command, []), *given.format(new=new).split()])
    assert_one_line(result)
    assert said in result.stderr
    assert not new.exists()


@pytest.mark.parametrize(
    "given",
    [
        "--scale=size=1e20", "--scale=size=1" + 20 * "0", "--scale=epochs=inf", "--scale=epochs=nan",
        "--scale=epochs=1e20", "--scale=lr=nan", "--scale=lr=inf", "--scale=fraction=nan", "--scale=batch_size=0",
        "--scale=prune_images=-5", "--scale=small,size=", "--scale=huge", "--set=lr=", "--set=lr=nan", "--set=lr",
        "--set=exclude=", "--set=primary=", "--set=ema=1", "--set=epochs=1e3", "--set=seed=3", "--set=weights= ",
    ],
)  # fmt: skip
def test_an_odd_setting_of_an_experiment_is_one_line(given: str, arguments, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["experiment", *arguments("experiment", ""), given])
    assert_one_line(result)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:99", "cuda:" + 25 * "9", "cpu:5", "meta", "-"])
@pytest.mark.parametrize("command", ["train", "experiment"])
def test_a_device_that_is_not_here_is_one_line(command: str, device: str, arguments) -> None:
    result = CliRunner().invoke(main, [command, *arguments(command, ""), f"--device={device}"])
    assert_one_line(result)
    assert "device" in result.stderr
