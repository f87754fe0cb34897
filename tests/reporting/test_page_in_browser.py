"""The page in a real browser, if there is one: nothing wider than the window, no errors, no requests."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fastccsa.reporting import read_runs, score_table
from fastccsa.reporting.page import render_page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)

# Headless windows have a minimum width, but frames do not: the page is measured in a frame.
FRAME = """<!DOCTYPE html><title>none</title>
<iframe id="frame" width="{width}" height="800" style="border: 0" srcdoc="{page}"></iframe>
<script>
addEventListener("load", () => {{
  const page = document.getElementById("frame").contentDocument;
  page.querySelectorAll("details").forEach(details => {{ details.open = true; }});
  const loaded = [...page.images].filter(image => image.naturalWidth > 0).length;
  const root = page.documentElement;
  document.title = [root.scrollWidth - root.clientWidth, loaded, page.images.length].join(" ");
}});
</script>"""


@pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(BROWSERS)} is installed")
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_its_window(experiments: Path, tmp_path: Path, width: int) -> None:
    runs = read_runs(experiments)
    page = render_page(runs, score_table(runs))
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(width=width, page=html.escape(page)), encoding="utf-8")
    assert BROWSER is not None
    result = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--window-size=1400,900",
            "--dump-dom", frame.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search(r"<title>(\d+) (\d+) (\d+)</title>", result.stdout)
    assert found, result.stderr[-2000:]
    assert found[1] == "0"
    assert found[2] == found[3]  # every image can be displayed
    assert int(found[3]) > 0
    assert "CONSOLE" not in result.stderr
