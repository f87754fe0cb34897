"""``fastccsa render`` draws the synthetic collections with the settings that it is given."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import fastccsa.collections
from fastccsa.cli import main
from fastccsa.collections import Manifest, render_collections


def render(out: Path, *more: str) -> Result:
    return CliRunner().invoke(main, ["render", "--out", str(out), "--images", "1", "--width", "64", *more])


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A folder drawn with settings other than the defaults, and the result of the command."""
    out = tmp_path_factory.mktemp("render") / "out"
    return out, render(out, "--shift", "2", "--confounding", "0.5", "--seed", "3")


def test_it_draws_what_the_function_draws(rendered: tuple[Path, Result], tmp_path: Path) -> None:
    out, result = rendered
    assert result.exit_code == 0, result.output
    render_collections(tmp_path, 1e-9, 3, shift=2, confounding=0.5, width=64, progress=False)
    assert files(out) == files(tmp_path)


def test_it_prints_the_counts_and_where_the_manifest_is(rendered: tuple[Path, Result]) -> None:
    out, result = rendered
    manifest = Manifest.read(out / "manifest.csv")
    assert manifest.summary().to_string() in result.stdout
    assert result.stdout.endswith(f"\nWrote {len(manifest)} images and {out / 'manifest.csv'}\n")


def test_the_number_of_images_and_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scale of 1 is the size of Table 1, whose domains have these numbers of images as printed."""
    printed = 10015 + 1212 + 1924 + 3551 + 200 + 9251 + 601
    calls = []

    class Stop(Exception):
        pass

    def record(*arguments: object, **settings: object) -> None:
        calls.append((arguments, settings))
        raise Stop

    monkeypatch.setattr(fastccsa.collections, "render_collections", record)
    result = CliRunner().invoke(main, ["render", "--out", "folder", "--images", "1300"])
    assert isinstance(result.exception, Stop)
    (((out, scale, seed), settings),) = calls
    assert (out, seed) == (Path("folder"), 0)
    assert scale == pytest.approx(1300 / printed)
    defaults = inspect.signature(render_collections).parameters
    assert settings == {name: defaults[name].default for name in ("shift", "confounding", "width")}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--shift", "-1"),
        ("--shift", "nan"),
        ("--shift", "far"),
        ("--confounding", "1.5"),
        ("--confounding", "nan"),
        ("--width", "63"),
        ("--images", "0"),
        ("--seed", "-1"),
    ],
    ids=" ".join,
)
def test_invalid_values_are_an_error_of_one_line(tmp_path: Path, arguments: tuple[str, str]) -> None:
    result = render(tmp_path / "out", *arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("fastccsa: error: ")
    assert arguments[0].lstrip("-") in line
    assert not (tmp_path / "out").exists()


def test_other_settings_in_the_same_folder_are_an_error_of_one_line(rendered: tuple[Path, Result]) -> None:
    out, _ = rendered
    before = files(out)
    result = render(out, "--shift", "1", "--confounding", "0.5", "--seed", "3")
    assert result.exit_code == 2
    assert "other settings" in result.stderr.splitlines()[-1]
    assert files(out) == before
