from __future__ import annotations

from pathlib import Path

import pytest

from fastccsa.reporting import read_runs
from fastccsa.system.errors import InputError

EPOCH = '{"epoch": 1, "loss": 1, "validation": {}, "validation_recall": 0}\n'


def test_reads_every_finished_run_by_name_and_names_the_others(write_run, tmp_path: Path) -> None:
    write_run("k")
    write_run("a", n_sec=0, alignment="-")
    (write_run("b") / "scores.json").unlink()
    (tmp_path / "runs" / "plots").mkdir()
    folder = read_runs(tmp_path / "runs")
    assert [run.name for run in folder.runs] == ["a", "k"]
    assert folder.unfinished == ("b",)
    assert folder.runs[0].config.is_baseline
    assert [record["loss"] for record in folder.runs[1].history] == [2.5, 1.25, 1.5, 0.5]


def test_a_run_folder_is_a_folder_of_one_run(write_run) -> None:
    folder = read_runs(write_run("k"))
    assert [run.name for run in folder.runs] == ["k"]


def test_a_note_is_read_with_the_runs(write_run, tmp_path: Path) -> None:
    write_run("k")
    (tmp_path / "runs" / "note.txt").write_text("synthetic\n")
    assert read_runs(tmp_path / "runs").note == "synthetic"


def test_the_history_may_be_missing(write_run) -> None:
    folder = write_run("k")
    (folder / "metrics.jsonl").unlink()
    assert read_runs(folder).runs[0].history == ()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no folder at .*nowhere"):
        read_runs(tmp_path / "nowhere")


def test_a_folder_without_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run in .*config\.json"):
        read_runs(tmp_path)


def test_only_unfinished_runs_is_an_error_that_names_them(write_run, tmp_path: Path) -> None:
    (write_run("k") / "scores.json").unlink()
    with pytest.raises(InputError, match=r"k: scores\.json is missing"):
        read_runs(tmp_path / "runs")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, r"config\.json is missing"),
        ("config.json", "{", r"config\.json"),
        ("scores.json", '{"split": "test"}', r"scores\.json"),
        ("metrics.jsonl", EPOCH + '{"epoch"\n', r"metrics\.jsonl, line 2"),
        ("metrics.jsonl", EPOCH + "[]\n", r"metrics\.jsonl, line 2"),
        ("metrics.jsonl", '{"loss": 1}\n', r"metrics\.jsonl, line 1 is not the record of an epoch \(epoch, validation"),
        ("metrics.jsonl", b"\xff\xfe", r"metrics\.jsonl, line 1"),
        ("environment.json", "no", r"environment\.json"),
    ],
)
def test_a_broken_file_is_named(write_run, file: str, content: str | bytes | None, message: str) -> None:
    folder = write_run("k")
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        read_runs(folder)
