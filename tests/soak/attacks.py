"""Replay every attack that the project was found weak against, and print a table of what comes of each now.

    python tests/soak/attacks.py           # about ten minutes, most of them for the tests that it runs
    python tests/soak/attacks.py --short   # under a minute: without the tests, and with fewer damaged files

A replay (`replays.py`) runs in a forked child, so that a crash or a hang is an outcome too. Attacks that need more of a
scene are tests of the suite: they are run by name; the short form only checks that they exist. What the attacks did
before they were answered is in the column "before". The exit status says whether all are answered.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))
sys.path.insert(0, str(Path(__file__).parent))

import broken_files
import differential
import image_replays
import replays
import torch

HERE = Path(__file__).parent
SECONDS = 120  # of CPU or of the clock, after which a replay counts as a hang
Replay = Callable[[replays.Scene], str]


@dataclass(frozen=True)
class Attack:
    """An attack: the part of the project, what is done, what came of it before, and a replay or tests."""

    part: str
    name: str
    before: str
    how: Replay | tuple[str, ...]


def damaged(files: int) -> Replay:
    """Return a replay that damages files of a run, and reads each."""

    def replay(scene: replays.Scene) -> str:
        found = broken_files.attack(scene.material, files, seed=3, verbose=True)
        ends = {end: sum(counts[end] for counts in found.values()) for end in broken_files.ENDS}
        assert ends["traceback"] == ends["crash"] == 0, ends
        return f"{files} files: {ends['InputError']} named, {ends['read']} harmless, 0 tracebacks, 0 crashes"

    return replay


def mutated(files: int) -> Replay:
    """Return a replay that decodes valid and mutated JPEGs, and compares them with libjpeg-turbo's."""

    def replay(scene: replays.Scene) -> str:
        ends, wrong = differential.run(files, seed=5)
        assert not wrong, wrong
        both = ends["valid, decoded by both"] + ends["mutated, decoded by both"]
        return f"{files} files: {both} decoded by both decoders, 0 differ in any level"

    return replay


FILES, COMMANDS, IMAGES, MEMORY = "files", "command line", "images", "memory, threads"


def attacks(short: bool) -> tuple[Attack, ...]:
    """Return all attacks."""
    return (
        Attack("output", "`evaluate --json` to a device", "the device is replaced by a file", replays.device),
        Attack("output", "the same to a FIFO", "the FIFO is replaced by a file", replays.fifo),
        Attack("output", "the same to a link", "the link is replaced by a file", replays.link),
        Attack("output", "links in place of a shared cache's lock and crops", "their target is emptied or overwritten",
               replays.linked_cache),
        Attack("output", "another thread writes files meanwhile", "the umask of the process is set", replays.umask),
        Attack(FILES, "optimiser moments of a wrong shape", "segmentation fault", replays.moments),
        Attack(FILES, "the `last.pt` of another run", "resumed without a word", replays.other_run),
        Attack(FILES, "`--init` from changed weights", "taken", replays.init_digest),
        Attack(FILES, "crops cut short while they are read", "SIGBUS", replays.short_crops),
        Attack(FILES, "flipped and crafted files", "150 of 1,000 end in tracebacks", damaged(19 if short else 1026)),
        Attack(IMAGES, "PostScript named .jpg", "Ghostscript is started", image_replays.postscript),
        Attack(IMAGES, "a FIFO named .jpg", "hangs", image_replays.fifo_image),
        Attack(IMAGES, "a link to /dev/zero", "memory without bound", image_replays.endless_image),
        Attack(IMAGES, "a sparse file of 1 TB", "memory without bound", image_replays.sparse_image),
        Attack(IMAGES, "just under Pillow's limit of pixels", "2.2 GB", image_replays.many_pixels),
        Attack(IMAGES, "odd EXIF data", "the image is lost", image_replays.odd_exif),
        Attack(IMAGES, "unusable files in `prepare`", "it stops or hangs", image_replays.unusable_files),
        Attack(IMAGES, "an image missing at resume, and a FIFO", "the run stops or hangs",
               ("training/test_missing_images.py::test_a_resumed_run_replaces_a_missing_image_and_a_fifo",)),
        Attack("archives", "nested archives that grow together", "13 kB grow to 6.1 GB", image_replays.nested_bomb),
        Attack("archives", "bzip2 and LZMA that expand in memory", "3 kB take 8.5 GB",
               ("collections/test_archives.py::test_memory_does_not_grow_with_the_content",
                "collections/test_archives.py::test_a_window_of_lzma_larger_than_the_content_takes_no_memory")),
        Attack("archives", "an entry outside the folder", "refused before too", image_replays.path_trick),
        Attack("JPEG", "a marker without a length before the frame", "the run ends", image_replays.unread_header),
        Attack("JPEG", "mutated files: markers, intervals, tables", "92 of 1,155 differ by more than 3 levels",
               mutated(600 if short else 20_000)),
        Attack("one writer", "a second training into a folder", "each removes what the other wrote",
               replays.second_writer),
        Attack("one writer", "leftovers of killed exports and unpackings", "they stay", replays.leftovers),
        Attack(MEMORY, "a fork while a thread uses the loss", "3 of 11 children hang",
               ("losses/test_recycled_memory.py::test_children_that_are_forked_while_another_thread_uses_the_pool_do_"
                "not_wait_for_it",)),
        Attack(MEMORY, "an allocation that fails", "the pool keeps its memory",
               ("losses/test_recycled_memory.py::test_kept_memory_is_freed_when_memory_runs_out_and_on_request",)),
        Attack(MEMORY, "the limit of a container", "the host's memory counts",
               ("system/test_cgroups.py::test_the_limit_of_a_container",)),
        Attack(MEMORY, "SIGHUP", "ends the run unsaved",
               ("training/test_faults.py::test_after_a_signal_the_run_saves_and_resumes_to_the_same_model",)),
        Attack(COMMANDS, "inf, nan, 1e20, 1e12 and empty values", "tracebacks, or taken", replays.odd_numbers),
        Attack(COMMANDS, "a full disk", "a traceback", replays.full_disk),
        Attack(COMMANDS, "escape sequences in a manifest", "printed", replays.control_characters),
        Attack(COMMANDS, "cells that begin with = or @", "computed by spreadsheets", replays.formulas),
        Attack("kills", "train, store, prune, export, experiment", "`test_outputs.safetensors` differs",
               ("soak/test_soak.py::test_commands_killed_at_random_end_as_undisturbed_ones",)),
    )  # fmt: skip


def carry_out(attack: Attack, scene: replays.Scene) -> tuple[bool, str]:
    """Carry out a replay in a forked child; return whether it is answered, and the outcome."""
    assert not isinstance(attack.how, tuple)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        signal.alarm(SECONDS)
        status = 1
        try:
            outcome = attack.how(scene)
            status = 0
        except BaseException as error:
            traceback.print_exc()
            outcome = f"NOT ANSWERED: {type(error).__name__}: {error}"
        os.write(writer, outcome.encode()[:4000])
        os._exit(status)
    os.close(writer)
    with open(reader, encoding="utf-8", errors="replace") as told:
        outcome = told.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status == 0, outcome if status >= 0 else f"NOT ANSWERED: signal {-status}"


def run_tests(tests: tuple[str, ...], short: bool) -> tuple[bool, str]:
    """Run tests of the suite by name; in short, check only that they exist."""
    names = ", ".join(f"`{test.partition('::')[2]}`" for test in tests)
    if short:
        missing = [test for test in tests if not _exists(test)]
        return not missing, f"NOT ANSWERED: no test {missing}" if missing else f"a test of the suite: {names}"
    # In a process of its own: other tests of the suite import other packages of the same names.
    call = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(call, cwd=HERE.parent, capture_output=True, text=True)
    last = done.stdout.strip().splitlines()[-1:]
    return done.returncode == 0, f"{'passed' if done.returncode == 0 else f'NOT ANSWERED: {last}'}: {names}"


def _exists(test: str) -> bool:
    file, _, name = test.partition("::")
    return re.search(rf"^def {re.escape(name)}\(", (HERE.parent / file).read_text(encoding="utf-8"), re.M) is not None


def main() -> None:
    """Replay the attacks and print the table; the exit status says whether all are answered."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="without the tests, and with fewer files")
    parser.add_argument("--only", help="attacks with this word in their name")
    options = parser.parse_args()
    torch.set_num_threads(1)
    random.seed(0)
    started, bad = time.monotonic(), 0
    print("| part | attack | before | outcome |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        material = broken_files.prepare(Path(temporary))
        chosen = [one for one in attacks(options.short) if (options.only or "") in one.name]
        for number, attack in enumerate(chosen):
            folder = Path(temporary) / f"attack{number}"
            folder.mkdir()
            if isinstance(attack.how, tuple):
                answered, outcome = run_tests(attack.how, options.short)
            else:
                answered, outcome = carry_out(attack, replays.Scene(material, folder))
            bad += not answered
            print(f"| {attack.part} | {attack.name} | {attack.before} | {outcome.replace('|', '/')} |", flush=True)
    print(f"\n{len(chosen) - bad} of {len(chosen)} attacks answered in {time.monotonic() - started:.0f} s")
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
