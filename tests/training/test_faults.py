"""Runs under faults: what the user sees, and what is saved."""

from __future__ import annotations

import csv
import errno
import logging
import os
import pty
import resource
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from fastccsa.data import Manifest
from fastccsa.images import loaders
from fastccsa.images.base_loader import Loader
from fastccsa.models import load_model
from fastccsa.runs import checkpoint as checkpoint_module
from fastccsa.runs import run_files
from fastccsa.runs.background import Background
from fastccsa.system.errors import InputError, Interrupted
from fastccsa.training import divergence, saving, scalars, scoring, train
from fastccsa.training.step import Step
from fastccsa.training.stopping import StopRequests


def at_batch(monkeypatch, number: int, action) -> None:
    """Call ``action`` before batch ``number`` is learnt, counted from 1 over the whole call of `train`."""
    learn, count = Step.learn, 0

    def counted(self, *args):
        nonlocal count
        count += 1
        if count == number:
            action()
        learn(self, *args)

    monkeypatch.setattr(Step, "learn", counted)


def position(out: str) -> tuple[int, int]:
    content = torch.load(Path(out) / "last.pt", weights_only=True)
    return content["epoch"], content["step"]


def same_model(first: str, second: str) -> bool:
    one, other = load_model(first).state_dict(), load_model(second).state_dict()
    return all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def usual_handlers():
    """Handlers as in an interactive program; `nohup` and background jobs of a shell start with ignored signals."""
    usual = {
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
        signal.SIGINT: signal.default_int_handler,
    }
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield usual
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_after_a_signal_the_run_saves_and_resumes_to_the_same_model(
    make_config, monkeypatch, usual_handlers, number, status
) -> None:
    whole, broken = make_config("whole", epochs=1), make_config("broken", epochs=1)
    expected = train(whole, progress=False)
    with monkeypatch.context() as patch:
        at_batch(patch, 7, lambda: os.kill(os.getpid(), number))
        with pytest.raises(Interrupted, match=f"{number.name}: .* up to epoch 1, batch 7; the same command") as stop:
            train(broken, progress=False)
    assert stop.value.status == status
    assert {each: signal.getsignal(each) for each in usual_handlers} == usual_handlers
    assert position(broken.out) == (0, 7)
    assert train(broken, progress=False) == expected
    assert same_model(whole.out, broken.out)


def test_a_signal_while_validating_keeps_the_epoch(make_config, monkeypatch) -> None:
    config = make_config(alignment="-", epochs=1)
    with monkeypatch.context() as patch:
        batches = scoring.stoppable
        patch.setattr(
            scoring, "stoppable", lambda *args: (os.kill(os.getpid(), signal.SIGTERM), batches(*args))[1]
        )  # fmt: skip
        with pytest.raises(Interrupted, match="batch 11"):
            train(config, progress=False)
    assert position(config.out) == (0, 11)
    at_batch(monkeypatch, 1, lambda: pytest.fail("the epoch is trained again"))
    train(config, progress=False)


def test_at_the_time_limit_the_run_saves_and_the_same_call_resumes(make_config, device) -> None:
    settings = {"epochs": 1, "device": device}
    if device == "cuda":
        settings |= {"deterministic": True, "cache": "gpu", "cuda_graph": False}
    whole, limited = make_config("whole", **settings), make_config("limited", time_limit=1e-6, **settings)
    expected = train(whole, progress=False)
    with pytest.raises(Interrupted, match="time limit of 1e-06 minutes is reached") as stop:
        train(limited, progress=False)
    assert stop.value.status == 0
    assert train(replace(limited, time_limit=0.0), progress=False) == expected
    assert same_model(whole.out, limited.out)


def test_a_signal_repeated_by_torchrun_does_not_end_the_process(monkeypatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a run")
    with StopRequests() as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested() == signal.SIGTERM
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    with StopRequests():
        os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # the second one ends it


def test_a_second_interrupt_is_a_keyboard_interrupt_which_a_notebook_survives(
    make_config, monkeypatch, usual_handlers
) -> None:
    config = make_config(alignment="-", epochs=1)

    def interrupt_twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        at_batch(patch, 2, interrupt_twice)
        with pytest.raises(KeyboardInterrupt) as stop:
            train(config, progress=False)
    assert not isinstance(stop.value, Interrupted)
    assert {each: signal.getsignal(each) for each in usual_handlers} == usual_handlers
    train(config, progress=False)  # the folder is not locked any more


def test_the_handlers_are_back_after_a_run_and_after_an_error(make_config, monkeypatch, usual_handlers) -> None:
    received = []
    for number in usual_handlers:
        signal.signal(number, lambda number, frame: received.append(number))
    own = {each: signal.getsignal(each) for each in usual_handlers}
    train(make_config(alignment="-", epochs=1), progress=False)
    assert {each: signal.getsignal(each) for each in own} == own
    at_batch(monkeypatch, 2, lambda: (_ for _ in ()).throw(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        train(make_config("other", alignment="-", epochs=1), progress=False)
    assert {each: signal.getsignal(each) for each in own} == own
    assert received == []


def test_a_second_signal_goes_to_the_handler_of_the_caller(usual_handlers) -> None:
    received = []
    signal.signal(signal.SIGHUP, lambda number, frame: received.append(number))
    with StopRequests() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert (stop.requested(), received) == (signal.SIGHUP, [])
        os.kill(os.getpid(), signal.SIGHUP)
        assert received == [signal.SIGHUP]


def test_under_nohup_a_closed_terminal_does_not_stop_the_run(usual_handlers) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopRequests() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.requested() == 0
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_a_handler_that_python_cannot_put_back_stays(monkeypatch, usual_handlers) -> None:
    """Such as that of a program in C that embeds Python: `signal.getsignal` returns None for it."""
    known = signal.getsignal
    monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGTERM else known(number))
    with StopRequests():
        assert known(signal.SIGTERM) == signal.SIG_DFL
        assert known(signal.SIGINT) != signal.default_int_handler


def test_a_closed_terminal_saves_the_run(make_config, usual_handlers) -> None:
    """The command runs on a terminal of its own, which disappears: nothing can be printed, and the run is saved."""
    config = make_config(alignment="-", epochs=50)
    arguments = [
        "train", "--manifest", config.manifest, "--out", config.out, "--alignment", "-", "--backbone", config.backbone,
        "--weights", "none", "--size", "32", "--epochs", "50", "--batch-size", "4", "--device", "cpu", "--workers", "1",
    ]  # fmt: skip
    process, terminal = pty.fork()
    if process == 0:
        os.execv(sys.executable, [sys.executable, "-m", "fastccsa", *arguments])
    shown = b""
    while b"epoch 1/50" not in shown:  # the status line of the first epoch, or its progress bar
        shown += os.read(terminal, 1024)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 128 + signal.SIGHUP
    assert (Path(config.out) / "last.pt").exists()


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_checkpoint_is_replaced_by_the_previous_one(make_config, monkeypatch, caplog, damage) -> None:
    whole, broken = (make_config(out, alignment="-", epochs=1, checkpoint_every=3) for out in ("whole", "broken"))
    expected = train(whole, progress=False)
    with monkeypatch.context() as patch:
        at_batch(patch, 8, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(broken, progress=False)
    assert position(broken.out) == (0, 6)
    last = Path(broken.out) / "last.pt"
    content = bytearray(last.read_bytes())
    if damage == "cut":
        last.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1  # a bit of a weight, which torch.load does not notice
        last.write_bytes(content)
    else:  # killed between the two renames
        last.unlink()
    leftovers = [last.parent / name for name in (".last.pt.abc.part", ".model.safetensors.def.part")]
    for file in leftovers:
        file.write_bytes(b"half a file")
    assert train(broken, progress=False) == expected
    assert same_model(whole.out, broken.out)
    assert not any(file.exists() for file in leftovers)
    if damage != "gone":
        assert "is used instead: epoch 0, step 3" in caplog.text


def raising(error: Exception):
    def raise_it(*args, **kwargs):
        raise error

    return raise_it


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
READ_ONLY = OSError(errno.EROFS, os.strerror(errno.EROFS))


@pytest.mark.parametrize("error", [FULL, READ_ONLY, RuntimeError("PytorchStreamWriter failed writing file")])
def test_a_failed_write_within_an_epoch_is_a_warning(make_config, monkeypatch, caplog, error) -> None:
    config = make_config(alignment="-", epochs=1, checkpoint_every=4)
    save, calls = torch.save, []

    def sometimes(*args, **kwargs):
        calls.append(args)
        if len(calls) == 1:
            raise error
        save(*args, **kwargs)

    monkeypatch.setattr(torch, "save", sometimes)
    train(config, progress=False)
    assert "cannot be saved" in caplog.text
    assert "the run goes on" in caplog.text
    assert len(calls) == 3


def test_waiting_for_the_losses_is_part_of_what_a_checkpoint_costs(make_config, monkeypatch) -> None:
    """Reading them waits for the GPU, which has nothing to do afterwards."""
    now, costs, summary, submit = [100.0], [], saving.summary, Background.submit

    def waits(state, run):
        now[0] += 7
        return summary(state, run)

    def seen(self, work, spent=0.0) -> None:
        costs.append(spent)
        submit(self, work, spent)

    monkeypatch.setattr(saving, "summary", waits)
    monkeypatch.setattr(Background, "submit", seen)
    for module in (saving, run_files):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    train(make_config(alignment="-", epochs=1, checkpoint_every=5), progress=False)
    assert costs == [7, 7, 0]  # two within the epoch, and one at its end


@pytest.fixture
def largest_file():
    """Return a function that limits the size of this process's files in bytes; None removes the limit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before[0] if size is None else size, before[1]))

    yield limit
    limit(None)


def test_a_limit_on_the_file_size_is_handled_like_a_full_disk(make_config, monkeypatch, caplog, largest_file) -> None:
    """The system itself interrupts a write, within torch's writer."""
    whole, broken = (make_config(out, alignment="-", epochs=1, checkpoint_every=4) for out in ("whole", "broken"))
    expected = train(whole, progress=False)
    with monkeypatch.context() as patch:
        at_batch(patch, 3, lambda: largest_file(64 << 10))
        with pytest.raises(InputError, match=r"cannot be saved \(.*\): its last checkpoint is kept; make room, then"):
            train(broken, progress=False)
    assert "File too large" in caplog.text  # the checkpoint after 4 batches, a warning
    assert not (Path(broken.out) / "last.pt").exists()
    with monkeypatch.context() as patch:
        largest_file(64 << 10)
        at_batch(patch, 5, lambda: largest_file(None))  # room again, before the epoch's end
        assert train(broken, progress=False) == expected
    assert same_model(whole.out, broken.out)
    assert not list(Path(broken.out).glob(".*"))


def test_a_full_disk_at_the_end_of_an_epoch_stops_the_run_without_loss(make_config, monkeypatch) -> None:
    whole, broken = (make_config(out, alignment="-", epochs=1, checkpoint_every=5) for out in ("whole", "broken"))
    expected = train(whole, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(run_files, "write_metrics", raising(FULL))  # written before the checkpoint
        with pytest.raises(InputError, match=r"No space left on device; .* free\): its last checkpoint is kept; make"):
            train(broken, progress=False)
    assert position(broken.out) == (0, 10)
    assert train(broken, progress=False) == expected
    assert same_model(whole.out, broken.out)


def test_a_configuration_that_cannot_be_written_is_an_error(make_config, monkeypatch) -> None:
    monkeypatch.setattr(Path, "write_text", raising(FULL))
    with pytest.raises(InputError, match=r"cannot write .*config\.json: No space left on device; make room, or"):
        train(make_config(), progress=False)


def test_too_small_a_disk_is_reported_before_the_first_step(make_config, monkeypatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    at_batch(monkeypatch, 1, lambda: pytest.fail("training began"))
    with pytest.raises(InputError, match=r"needs 0\.0\d GB for checkpoints, and its disk has 0\.00 GB free"):
        train(make_config(), progress=False)


def test_a_failed_write_of_tensorboards_log_does_not_stop_the_run(make_config, monkeypatch, caplog) -> None:
    monkeypatch.setattr(scalars.SummaryWriter, "add_scalar", raising(FULL))
    train(make_config(alignment="-", epochs=1), progress=False)
    assert "TensorBoard's log cannot be written" in caplog.text


@pytest.fixture
def own_images(manifest_csv, tmp_path) -> Path:
    """A copy of the images that a test may change."""
    for file in manifest_csv.parent.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path / manifest_csv.name


def test_a_missing_image_is_logged_counted_and_replaced(make_config, own_images, monkeypatch, caplog, capsys) -> None:
    config = replace(make_config(alignment="-", epochs=2), manifest=str(own_images))
    at_batch(monkeypatch, 9, lambda: (own_images.parent / "SON_bcc_1.png").unlink(missing_ok=True))
    with caplog.at_level(logging.WARNING):
        train(config)
    assert "SON_bcc_1.png" in caplog.text
    assert "another image is shown in its place" in caplog.text
    assert "1 broken images replaced" in capsys.readouterr().out
    assert '"broken_images": 1' in (Path(config.out) / "metrics.jsonl").read_text()


def test_a_missing_image_stops_the_run_if_configured(make_config, own_images, monkeypatch) -> None:
    config = replace(make_config(alignment="-", epochs=3), manifest=str(own_images), broken_images="stop")
    image = own_images.parent / "SON_bcc_1.png"
    content = image.read_bytes()
    with monkeypatch.context() as patch:
        at_batch(patch, 9, lambda: image.unlink(missing_ok=True))
        with pytest.raises(InputError, match=r"SON_bcc_1\.png: "):
            train(config, progress=False)
    epoch, step = position(config.out)
    assert 12 * epoch + step >= 9  # nothing learnt is lost
    image.write_bytes(content)
    whole = train(replace(config, out=config.out + "-whole"), progress=False)
    assert train(config, progress=False) == whole


def test_a_failing_reader_loses_nothing(make_config, monkeypatch, caplog) -> None:
    whole, broken = make_config("whole", alignment="-", epochs=1), make_config("broken", alignment="-", epochs=1)
    expected = train(whole, progress=False)
    with monkeypatch.context() as patch:
        steps = Loader._steps

        def dying(self, epoch, positions):
            for number, batch in enumerate(steps(self, epoch, positions)):
                if self.sampler.shuffle and number == 6:
                    raise RuntimeError("the decoder's thread is gone")
                yield batch

        patch.setattr(Loader, "_steps", dying)
        with pytest.raises(RuntimeError, match="the decoder's thread is gone"):
            train(broken, progress=False)
    assert "the loader failed; the run is saved up to epoch 1, batch 6" in caplog.text
    assert position(broken.out) == (0, 6)
    assert train(broken, progress=False) == expected
    assert same_model(whole.out, broken.out)


def test_a_loss_that_is_not_finite_names_domain_and_class_and_lists_the_batch(make_config, monkeypatch) -> None:
    config = make_config(checkpoint_every=2)
    images = Manifest.read(config.manifest).select("train")
    bad = next(row for row, path in enumerate(images.paths) if path.endswith("SON_mel_2.png"))
    assemble = loaders.PairLoader._assemble

    def poisoned(self, indices, pixels):
        batch = assemble(self, indices, pixels)
        batch["images1"][batch["index1"] == bad] = float("nan")
        return batch

    monkeypatch.setattr(loaders.PairLoader, "_assemble", poisoned)
    with pytest.raises(InputError, match="its 8 images include 1 of SON/mel with pixels that are not finite") as error:
        train(config, progress=False)
    with open(Path(config.out) / "diverged.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    named = [row for row in rows if row["finite_pixels"] == "False"]
    assert [(row["domain"], row["label"], row["stream"]) for row in named] == [("SON", "mel", "1")]
    assert named[0]["image"].endswith("SON_mel_2.png")
    assert "loss is nan" in str(error.value)
    assert "diverged.csv" in str(error.value)
    batch = load_file(Path(config.out) / "diverged.safetensors")
    assert batch["index1"].tolist() == [images.paths.index(row["image"]) for row in rows[:4]]
    assert torch.equal(batch["images1"].isnan().all(3).all(2).all(1), batch["index1"] == bad)


def test_the_list_of_a_diverged_batch_has_no_formulas(tmp_path) -> None:
    suspect = divergence.Suspect(1, "=HYPERLINK(1).png", "@nv", "HAM", True, True, -1.5)
    divergence._write_list(tmp_path / "diverged.csv", [suspect])
    with open(tmp_path / "diverged.csv") as file:
        (row,) = csv.DictReader(file)
    assert list(row.values()) == ["1", "'=HYPERLINK(1).png", "'@nv", "HAM", "True", "True", "-1.5"]


def test_a_batch_of_one_pair_is_checked_as_one_batch_of_two_images(make_config) -> None:
    training = Manifest.read(make_config().manifest).select("train")
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 5), torch.nn.BatchNorm1d(5))
    images = torch.rand(2, 3, 4, 4)
    images[1, 0, 0, 0] = float("nan")
    batch = {"images1": images[:1], "images2": images[1:], "index1": torch.tensor([3]), "index2": torch.tensor([1])}
    suspects = divergence.find_suspects(batch, lambda images: (network(images),) * 2, training, joint_forward=True)
    assert [(one.stream, one.image, one.finite_pixels) for one in suspects] == [
        (1, training.paths[3], True), (2, training.paths[1], False)
    ]  # fmt: skip


def test_a_batch_that_cannot_be_saved_does_not_hide_the_divergence(make_config, monkeypatch) -> None:
    monkeypatch.setattr(divergence, "save_file", raising(FULL))
    with pytest.raises(InputError, match=r"loss is nan.* the batch cannot be saved \(.*No space left on device\), and"):
        # Each step multiplies the weights by a million.
        train(make_config(alignment="-", lr=1000.0, weight_decay=1000.0), progress=False)


def test_a_bad_loss_leaves_the_weights_unchanged(make_config, monkeypatch) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    update = Step.update

    def watched(self):
        update(self)
        seen.append({key: value.clone() for key, value in self._state.model.named_parameters()})

    monkeypatch.setattr(Step, "update", watched)
    assemble, batches = loaders.ImageLoader._assemble, []

    def poisoned(self, indices, pixels):
        batch = assemble(self, indices, pixels)
        if self.sampler.shuffle:
            batches.append(batch)
            if len(batches) == 5:
                batch["images"].fill_(float("inf"))
        return batch

    monkeypatch.setattr(loaders.ImageLoader, "_assemble", poisoned)
    with pytest.raises(InputError, match="not finite at epoch 1, step 5"):
        train(make_config(alignment="-"), progress=False)
    assert all(torch.equal(seen[3][key], seen[-1][key]) for key in seen[3])
    assert not all(torch.equal(seen[2][key], seen[3][key]) for key in seen[3])


def test_checkpoints_are_read_without_executing_code(tmp_path, monkeypatch) -> None:
    read, calls = torch.load, []

    def careful(*args, **kwargs):
        calls.append(kwargs["weights_only"])
        return read(*args, **kwargs)

    monkeypatch.setattr(torch, "load", careful)
    torch.save({"no": "checkpoint"}, tmp_path / "last.pt")
    with pytest.raises(InputError, match="is missing"):
        checkpoint_module._read_newest(tmp_path, None, None)
    assert calls == [True]
