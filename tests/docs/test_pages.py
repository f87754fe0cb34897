"""The pages agree with the source: quoted messages, links, the version."""

from __future__ import annotations

import re
from pathlib import Path

import fastccsa

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def source() -> str:
    """Return the Makefile and all Python and C++ of the package, with strings that span several lines joined."""
    files = [ROOT / "setup.py", *(ROOT / "fastccsa").rglob("*.py"), *(ROOT / "csrc").rglob("*")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files if path.suffix in (".py", ".h", ".cpp", ".cuh"))
    return re.sub(r'"\s*\n\s*f?"', "", text) + (ROOT / "Makefile").read_text(encoding="utf-8")


def test_quoted_messages_are_in_the_source() -> None:
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    not_ours = {"undefined symbol", "not enough bytes were received"}
    quoted = [message for line in re.findall(r"^\*\*(.*?)\*\*", text, re.M) for message in re.findall(r"`(.+?)`", line)]
    assert len(quoted) > 15
    code = source()
    for message in quoted:
        if message in not_ours or message == "libfastccsa.so":
            continue
        assert re.search(".+?".join(map(re.escape, message.split("..."))), code), message


def test_links_lead_somewhere() -> None:
    """Pages outside docs/ are included, which the build of the site does not check."""
    for page in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "SECURITY.md",
        ROOT / "benchmarks" / "README.md",
        ROOT / "examples" / "README.md",
        *DOCS.rglob("*.md"),
    ):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", target):
                made = page.parent == DOCS and target in {
                    "command-line.md", "benchmarks.md", "changelog.md", "contributing.md", "citation.md", "security.md"
                }  # fmt: skip
                assert made or (page.parent / target).exists(), f"{page}: {target}"


def test_one_version_everywhere() -> None:
    assert f"\nversion: {fastccsa.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert fastccsa.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
