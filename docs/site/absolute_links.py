"""Make the README's links absolute, for the package index, which shows the README but not the files beside it.

    python docs/site/absolute_links.py --site https://OWNER.github.io/fastccsa

rewrites README.md in place: links to pages and pictures in docs/ lead to the published site. Run it in the checkout
from which the released packages are built, and do not commit the result.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s]+)\)")


@click.command()
@click.option("--site", required=True, help="Address of the published documentation.")
def main(site: str) -> None:
    """Rewrite README.md."""
    README.write_text(absolute(README.read_text(encoding="utf-8"), site), encoding="utf-8")


def absolute(markdown: str, site: str) -> str:
    """Return a page of the checkout's root with absolute links.

    Args:
        markdown: the page.
        site: address of the documentation that `make docs` builds.
    """

    def replace(link: re.Match[str]) -> str:
        path, hash_, anchor = link[1].partition("#")
        if not path.startswith("docs/"):
            sys.exit(f"README.md links to {path}, which is not in docs/: the package index could not show it")
        page = path.removeprefix("docs/")
        return f"]({site.rstrip('/')}/{re.sub(r'[.]md$', '.html', page)}{hash_}{anchor})"

    return LINK.sub(replace, markdown)


if __name__ == "__main__":
    main()
