"""Check of the built site: every link within it leads to an existing file, and to an existing anchor on that page.

MkDocs itself checks only the links between pages of docs/; this also checks generated pages and the API.
"""

from __future__ import annotations

import html
import logging
import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from mkdocs.config.defaults import MkDocsConfig

log = logging.getLogger("mkdocs.hooks.links")
LINK = re.compile(r'<[a-z]+ [^>]*?\b(?:href|src)="([^"]*)"')


def on_post_build(config: MkDocsConfig, **_: object) -> None:
    """Warn about each broken link; `mkdocs build --strict` then fails."""
    site = Path(config.site_dir)
    for page in sorted(site.rglob("*.html")):
        if page.name == "404.html":  # its links are relative to the root of the server, which is not known here
            continue
        for link in sorted(set(LINK.findall(page.read_text(encoding="utf-8")))):
            reason = broken(page, html.unescape(link))
            if reason:
                log.warning(f"{page.relative_to(site)}: {link} {reason}")


def broken(page: Path, link: str) -> str:
    """Return why a link does not work; empty if it works or leads out of the site."""
    if re.match(r"[a-z]+:|//", link):
        return ""
    path, _, anchor = unquote(link).partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.is_file():
        return "leads to no file"
    return "" if not anchor or anchor in anchors(target) else "leads to no anchor on its page"


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the ids on a page."""
    return frozenset(re.findall(r'\bid="([^"]+)"', page.read_text(encoding="utf-8")))
