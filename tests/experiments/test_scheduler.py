"""The execution of plans: order, failures, other processes. Training is replaced by a stub."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from fastccsa import pruning, training
from fastccsa.evaluation import DomainScores, Scores
from fastccsa.experiments import perform as perform_module
from fastccsa.experiments import scheduler
from fastccsa.experiments.perform import Slot
from fastccsa.experiments.scheduler import execute, make_slots
from fastccsa.runs.folder import open_run, write_scores
from fastccsa.runs.locks import is_locked, lock_file, try_lock
from fastccsa.system.errors import InputError, Interrupted
from fastccsa.training import TrainConfig
from fastccsa.training.stopping import StopRequests

SCORES = Scores("test", ("nv", "mel"), {"HAM": DomainScores(2, 0.5, (0.5, None), ((1, 1), (0, 0)))})
CPU = [Slot("cpu")]


@pytest.fixture
def trained(monkeypatch) -> list[TrainConfig]:
    """Replace training by a stub that records its configurations."""
    configs: list[TrainConfig] = []

    def train(config: TrainConfig) -> Scores:
        configs.append(config)
        write_scores(open_run(config), SCORES)
        return SCORES

    monkeypatch.setattr(training, "train", train, raising=False)
    monkeypatch.setattr(scheduler, "POLL_SECONDS", 0.01)
    return configs


def names(configs) -> list[str]:
    return ["/".join(config.out.split("/")[-2:]) for config in configs]


def test_each_run_comes_after_the_one_it_starts_from_and_nothing_is_done_twice(plan_of, trained) -> None:
    plan = plan_of("KAD", seeds=2)
    outcomes = execute(plan.runs, CPU)
    assert names(trained) == ["A/seed0", "D/seed0", "K/seed0", "A/seed1", "D/seed1", "K/seed1"]
    assert {outcome.status for outcome in outcomes.values()} == {"finished"}
    assert execute(plan_of("KADM", seeds=2).runs, CPU).keys().__len__() == 2
    assert names(trained)[6:] == ["M/seed0", "M/seed1"]


def test_a_failed_run_stops_only_the_runs_that_start_from_it(plan_of, trained, monkeypatch, capsys) -> None:
    good = training.train

    def train(config: TrainConfig) -> Scores:
        if config.out.endswith("A/seed0"):
            raise InputError("the loss is not finite")
        return good(config)

    monkeypatch.setattr(training, "train", train)
    outcomes = {run.name: outcome for run, outcome in execute(plan_of("KD", seeds=2).runs, CPU).items()}
    assert names(trained) == ["D/seed0", "A/seed1", "D/seed1", "K/seed1"]
    assert outcomes["A seed 0"].message == "the loss is not finite"
    assert outcomes["K seed 0"].message == "not run, because A, which it starts from, failed"
    assert "K seed 0: not run, because A, which it starts from, failed\n" in capsys.readouterr().out


def test_an_unexpected_error_fails_only_its_run(plan_of, trained, monkeypatch, capsys) -> None:
    good = training.train

    def train(config: TrainConfig) -> Scores:
        if "/D/" in config.out:
            raise RuntimeError("out of memory")
        return good(config)

    monkeypatch.setattr(training, "train", train)
    outcomes = {run.name: outcome for run, outcome in execute(plan_of("DE").runs, CPU).items()}
    assert outcomes["D seed 0"].message == "RuntimeError: out of memory"
    assert outcomes["E seed 0"].status == "finished"
    assert "Traceback" in capsys.readouterr().err


def test_a_run_of_another_process_is_waited_for(plan_of, trained) -> None:
    a, k = plan_of("K").runs
    started, done = threading.Event(), threading.Event()

    def other_process() -> None:
        with try_lock(a.folder) as acquired:
            assert acquired
            started.set()
            done.wait(10)
            write_scores(open_run(a.config), SCORES)

    other = threading.Thread(target=other_process)
    other.start()
    started.wait(10)
    threading.Timer(0.2, done.set).start()
    outcomes = execute([a, k], CPU)
    other.join()
    assert names(trained) == ["K/seed0"]
    assert {run.name: outcome.status for run, outcome in outcomes.items()} == {
        "A seed 0": "finished", "K seed 0": "finished",
    }  # fmt: skip


def test_a_lock_dies_with_its_process(tmp_path) -> None:
    folder = tmp_path / "A" / "seed0"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom fastccsa.runs.locks import try_lock\n"
        "with try_lock(Path(sys.argv[1])) as acquired:\n    print(acquired, flush=True)\n    time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "True\n"
    assert is_locked(folder)
    other.kill()
    other.wait()
    assert not is_locked(folder)
    assert lock_file(folder).exists()


def test_slots_share_the_processors(monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert make_slots(1, "cpu") == [Slot("cpu", 0)]
    assert make_slots(3, "cpu") == [Slot("cpu", 2)] * 3
    assert make_slots(16, "cpu") == [Slot("cpu", 1)] * 16


def test_slots_take_the_gpus_in_turn(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert [slot.device for slot in make_slots(3, "auto")] == ["cuda:0", "cuda:1", "cuda:0"]
    assert [slot.device for slot in make_slots(2, "cuda:1")] == ["cuda:1", "cuda:1"]
    with pytest.raises(InputError, match="cuda:5"):
        make_slots(1, "cuda:5")


def test_children_get_their_own_threads_unless_the_environment_says_otherwise(plan_of, monkeypatch) -> None:
    seen = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")

    class Children(perform_module.Children):
        def perform(self, run, slot):
            seen.append((os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"]))
            write_scores(open_run(run.config), SCORES)
            return perform_module.Outcome("finished")

    monkeypatch.setattr(scheduler, "Children", Children)
    execute(plan_of("AD").runs, [Slot("cpu", 3)] * 2)
    assert seen == [("3", "ACTIVE")] * 2
    assert "OMP_NUM_THREADS" not in os.environ


def test_a_pruned_row_is_pruned_from_its_start_with_its_seed(plan_of, trained, monkeypatch) -> None:
    calls = []

    def prune(**arguments):
        calls.append(arguments)
        write_scores(Path(arguments["out"]), SCORES)

    monkeypatch.setattr(pruning, "prune", prune, raising=False)
    plan = plan_of("V", seeds=2, scale="size=32,epochs=1,weights=none,prune_images=30", settings=["backbone=resnet18"])
    assert plan.problems == ()
    assert {outcome.status for outcome in execute(plan.runs, CPU).values()} == {"finished"}
    assert names(trained) == ["A/seed0", "K/seed0", "A/seed1", "K/seed1"]
    runs = {run.name: run for run in plan.runs}
    assert [(arguments["run"], arguments["out"], arguments["seed"]) for arguments in calls] == [
        (str(runs[f"K seed {seed}"].folder), str(runs[f"V seed {seed}"].folder), seed) for seed in (0, 1)
    ]
    assert (calls[0]["threshold"], calls[0]["images"], calls[0]["discrimination_images"]) == (1e-3, 30, 8)


@pytest.fixture
def forked(monkeypatch) -> None:
    """Fork the children, so that they have the stubs of the test."""
    monkeypatch.setattr(
        perform_module.multiprocessing, "get_context", lambda kind, get=multiprocessing.get_context: get("fork")
    )


def test_a_child_that_dies_without_a_message_is_a_failed_run(plan_of, monkeypatch, forked) -> None:
    (run,) = plan_of("A").runs
    monkeypatch.setattr(perform_module, "perform", lambda run, slot: os._exit(7))
    children = perform_module.Children()
    outcome = children.perform(run, Slot("cpu"))
    assert outcome.status == "failed"
    assert "status 7" in outcome.message
    monkeypatch.setattr(perform_module, "perform", lambda run, slot: perform_module.Outcome("finished"))
    assert children.perform(run, Slot("cpu")).status == "finished"
    children.end()


def test_a_child_performs_one_run_after_another_each_with_its_log(plan_of, monkeypatch, forked) -> None:
    def train(config: TrainConfig) -> None:
        os.write(1, f"{config.out} in {os.getpid()}\n".encode())  # pytest replaces sys.stdout
        if config.out.endswith("A/seed1"):
            raise RuntimeError("an illegal memory access was encountered")
        write_scores(open_run(config), SCORES)

    monkeypatch.setattr(training, "train", train, raising=False)
    a0, e0, a1, e1 = plan_of("AE", seeds=2).runs
    children = perform_module.Children()
    outcomes = [children.perform(run, Slot("cpu", jobs=2)) for run in (a0, e0, a1, e1)]
    children.end()
    assert [outcome.status for outcome in outcomes] == ["finished", "finished", "failed", "finished"]
    lines = [perform_module.log_file(run).read_text().splitlines()[0] for run in (a0, e0, a1, e1)]
    assert [line.split(" in ")[0] for line in lines] == [str(run.folder) for run in (a0, e0, a1, e1)]
    processes = [int(line.split(" in ")[1]) for line in lines]
    assert processes[0] == processes[1] == processes[2]
    assert processes[3] not in (processes[0], os.getpid())  # after an error, a process may be unusable
    assert not multiprocessing.active_children()


GPU = [Slot("cuda:0")]


def test_a_single_gpu_has_a_process_that_is_replaced_after_an_error(plan_of, monkeypatch, forked, capfd) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)

    def train(config: TrainConfig) -> None:
        os.write(1, f"{os.getpid()} {os.environ.get('OMP_WAIT_POLICY')}\n".encode())
        if "/D/" in config.out:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        write_scores(open_run(config), SCORES)

    monkeypatch.setattr(training, "train", train, raising=False)
    runs = plan_of("ADE").runs
    outcomes = execute(runs, GPU, say=lambda line: None)
    assert [outcomes[run].status for run in runs] == ["finished", "failed", "finished"]
    printed = capfd.readouterr().out.split("\n")
    processes, policies = zip(*(line.split() for line in printed if line), strict=True)
    assert processes[0] == processes[1] != processes[2]
    assert str(os.getpid()) not in processes
    assert set(policies) == {"None"}
    assert not any(perform_module.log_file(run).exists() for run in runs)
    assert not multiprocessing.active_children()


def test_a_single_cpu_needs_no_process(plan_of, trained) -> None:
    execute(plan_of("A").runs, CPU)
    assert names(trained) == ["A/seed0"]  # of this process


@pytest.mark.parametrize(("jobs", "stops"), [(1, True), (2, False)])
def test_a_stop_of_the_only_run_at_a_time_ends_the_experiment(plan_of, monkeypatch, forked, jobs, stops) -> None:
    """Such as at its time limit; it is told as if the run were carried out in this process."""

    def train(config: TrainConfig) -> None:
        if "/A/" in config.out:
            raise Interrupted("the time limit is reached", 0)
        write_scores(open_run(config), SCORES)

    monkeypatch.setattr(training, "train", train, raising=False)
    runs = plan_of("AE").runs
    slots = [Slot("cuda:0", 1, jobs, jobs)] * jobs
    if stops:
        with pytest.raises(Interrupted, match="the time limit is reached") as stop:
            execute(runs, slots, say=lambda line: None)
        assert stop.value.status == 0
    else:
        monkeypatch.setattr(scheduler, "make_crops", lambda *_: None)
        outcomes = execute(runs, slots, say=lambda line: None)
        assert [(outcomes[run].status, outcomes[run].message) for run in runs] == [
            ("failed", "the time limit is reached"), ("finished", ""),
        ]  # fmt: skip
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_processes_lets_the_children_save(plan_of, monkeypatch, forked, number) -> None:
    """As a scheduler or a closed terminal sends it: a second one of a kind would end the children at once."""
    runs = plan_of("AE").runs
    before = signal.signal(number, signal.SIG_DFL)

    def train(config: TrainConfig) -> None:
        folder = open_run(config)
        with StopRequests() as stop:
            (folder / "started").touch()
            while not stop.requested():
                time.sleep(0.01)
            time.sleep(0.3)  # the last step
            (folder / "saved").touch()
            raise stop.interrupted(stop.requested(), "it is saved")

    def stop_all() -> None:
        while not all((run.folder / "started").exists() for run in runs):
            time.sleep(0.01)
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, number)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(training, "train", train, raising=False)
    threading.Thread(target=stop_all).start()
    try:
        with pytest.raises(Interrupted, match=f"stopped by {number.name}: the runs are saved") as stop:
            execute(runs, [Slot("cpu", 1, 2, 2)] * 2)
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert stop.value.status == 128 + number
    assert all((run.folder / "saved").exists() for run in runs)
    assert not multiprocessing.active_children()


def test_two_schedulers_on_one_folder_share_the_work(plan_of, trained) -> None:
    plan = plan_of("ADE", seeds=3)
    good, mutex = training.train, threading.Lock()

    def train(config: TrainConfig) -> Scores:
        time.sleep(0.02)
        with mutex:
            return good(config)

    training.train = train  # the fixture restores it
    threads = [threading.Thread(target=execute, args=(plan.runs, CPU)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names(trained)) == sorted(f"{run.row.letter}/seed{run.seed}" for run in plan.runs)
