"""The limits of containers on memory, read from copies of the files that the kernel has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fastccsa.system import cgroups, machine

GIB = 1 << 30

Groups = Callable[[str, dict[str, str]], None]


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Groups:
    """Set the groups of this process, as in /proc/self/cgroup, and the files below /sys/fs/cgroup."""
    monkeypatch.setattr(cgroups, "ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(cgroups, "MEMBERSHIP", tmp_path / "membership")

    def make(membership: str, files: dict[str, str]) -> None:
        (tmp_path / "membership").write_text(membership)
        for name, content in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    return make


def test_no_limit_is_the_machine(groups: Groups) -> None:
    groups("0::/user.slice\n", {"user.slice/memory.max": "max\n"})
    assert cgroups.memory_limit() is None
    assert cgroups.memory_left() is None
    assert machine.memory_bytes() > GIB


def test_a_system_without_groups_has_no_limit(groups: Groups) -> None:
    assert cgroups.memory_limit() is None


def test_the_limit_of_a_container(groups: Groups) -> None:
    """As docker run -m 1g shows it: the container's own group is the root."""
    files = {"memory.max": f"{GIB}\n", "memory.current": "700\n", "memory.stat": "anon 500\ninactive_file 200\n"}
    groups("0::/\n", files)
    assert machine.memory_bytes() == GIB
    assert machine.available_bytes(torch.device("cpu")) == GIB - 500


def test_the_lowest_limit_of_all_levels_counts(groups: Groups) -> None:
    """A job of a scheduler may have a limit on the job and one on its step."""
    files = {
        "slurm/job/memory.max": f"{4 * GIB}",
        "slurm/job/memory.current": f"{3 * GIB + 5}",
        "slurm/job/step/memory.max": f"{2 * GIB}",
        "slurm/job/step/memory.current": "0",
        "memory.max": "max",
    }
    groups("0::/slurm/job/step\n", files)
    assert cgroups.memory_limit() == 2 * GIB
    assert cgroups.memory_left() == GIB - 5  # the job's other step uses the rest


def test_version_1(groups: Groups) -> None:
    files = {
        "memory/docker/x/memory.limit_in_bytes": f"{GIB}\n",
        "memory/docker/x/memory.usage_in_bytes": "300\n",
        "memory/docker/x/memory.stat": "cache 999\ntotal_inactive_file 100\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",  # none
    }
    groups("11:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n0::/\n", files)
    assert cgroups.memory_limit() == GIB
    assert cgroups.memory_left() == GIB - 200


def test_a_path_of_the_host_that_is_not_visible_within_a_container(groups: Groups) -> None:
    groups("0::/kubepods/pod7/abc\n", {"memory.max": f"{GIB}\n"})
    assert cgroups.memory_limit() == GIB


def test_a_group_over_its_limit_has_nothing_left(groups: Groups) -> None:
    groups("0::/\n", {"memory.max": "100\n", "memory.current": "150\n"})
    assert cgroups.memory_left() == 0


def test_a_process_counts_its_share_of_the_memory(groups: Groups) -> None:
    groups("0::/\n", {"memory.max": f"{GIB}\n", "memory.current": "0\n", "memory.stat": "anon 0\n"})
    with machine.memory_share(0.25, 1.0):
        assert machine.available_bytes(torch.device("cpu")) == GIB // 4
    with machine.memory_share(1.0, 0.25):
        assert machine.available_bytes(torch.device("cpu")) == GIB
