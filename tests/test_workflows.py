"""The GitHub workflows: they call the Makefile, pin what they use, and ask for no more rights than they need.

`make workflows` checks their syntax.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# What only these jobs may do: publish pages, upload findings, sign wheels, publish them, and make a release.
WRITE_RIGHTS = {
    "docs.yml": {"pages", "id-token"},
    "codeql.yml": {"security-events"},
    "wheels.yml": {"id-token", "attestations", "contents"},
}


def targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    return set(re.findall(r"^\.PHONY:(.*)", makefile, re.M)[0].split())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_command_is_a_target_of_the_makefile(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    commands = re.findall(r"^\s*-? ?run: (.*)$", text, re.M)
    assert len(commands) == len(re.findall(r"\brun:", text))
    for command in commands:
        words = command.split()
        assert words[0] == "make", command
        assert words[1] in targets(), command
        assert all(re.fullmatch(r"[A-Z_]+=[\w.]+", word) for word in words[2:]), command


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit(path: Path) -> None:
    used = re.findall(r"^\s*-? ?uses: (.*)$", path.read_text(encoding="utf-8"), re.M)
    assert used
    for action in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_rights_are_the_least(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.search(r"^permissions:\n  contents: read\n\w", text, re.M)
    assert set(re.findall(r"([\w-]+): write\b", text)) == WRITE_RIGHTS.get(path.name, set())
    assert text.count("actions/checkout@") == text.count("persist-credentials: false")
    assert "${{ secrets." not in text
