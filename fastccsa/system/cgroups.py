"""The memory that a container or a scheduler allows, which may be less than the machine has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")

# Limit, use and statistics of version 2 and of version 1, and what can be taken back from the page cache.
_FILES = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
_NO_LIMIT = 1 << 60  # version 1 writes a huge number where there is none


def memory_limit() -> int | None:
    """Return the lowest limit of the groups of this process in bytes; None if there is none."""
    return min((limit for _, limit, _ in _limits()), default=None)


def memory_left() -> int | None:
    """Return the number of bytes that this process can still use within the limits; None if there are none.

    File content that the system keeps in memory but can drop counts as free.
    """
    left = []
    for folder, limit, version in _limits():
        _, use, cache = _FILES[version]
        used = _number(folder / use) or 0
        left.append(max(0, limit - max(0, used - _statistic(folder / "memory.stat", cache))))
    return min(left, default=None)


def _limits() -> Iterator[tuple[Path, int, int]]:
    """Yield folder, limit in bytes and version of each group with a limit, from that of this process upwards."""
    for folder, version in _groups():
        limit = _number(folder / _FILES[version][0])
        if limit is not None and limit < _NO_LIMIT:
            yield folder, limit, version


def _groups() -> Iterator[tuple[Path, int]]:
    try:
        lines = MEMBERSHIP.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # another system
        return
    for number, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if number == "0" and not controllers:
            root, version = ROOT, 2
        elif "memory" in controllers.split(","):
            root, version = ROOT / "memory", 1
        else:
            continue
        # Within a container, the path may be that of the host, of which only the end exists here, or nothing.
        folder = root / path.lstrip("/")
        while True:
            if folder.is_dir():
                yield folder, version
            if folder == root or root not in folder.parents:
                break
            folder = folder.parent


def _number(file: Path) -> int | None:
    """Return the number in a file; None for "max", or if there is no such file."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _statistic(file: Path, name: str) -> int:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    found = (line.split() for line in lines)
    return next((int(value) for key, value in found if key == name), 0)
