"""Take the pictures of docs/gallery.md from a report page, with Chromium.

    python docs/site/gallery.py --report demo/report.html

writes one picture for each part of the page into docs/pictures/report/. Everything else on the page
is hidden. Needs Chromium (or Chrome) on the PATH, and Pillow.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import click
from PIL import Image, ImageChops

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "pictures" / "report"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH, HEIGHT, SCALE = 700, 3000, 1.25  # of the window, in CSS pixels, and pixels per CSS pixel
WIDER = {"scores": 1620}  # pictures of tables that would be cut off
MARGIN = 24
QUALITY = 60

# Name of the picture -> what it shows: elements of the page, or sections of an experiment by their heading.
PARTS = {
    "scores": "header, #scores, #classes",
    "numbers": "#numbers, #scale",
    "confusion": "Confusion matrices",
    "training": "Training",
    "sampling": "Sampling",
    "features": "Features",
    "distances": "Distances across domains",
    "calibration": "Calibration",
    "grad-cam": "Grad-CAM",
}

# Hides every element that neither contains nor belongs to a chosen one.
SCRIPT = """
<script>
const part = %(part)r, experiment = %(experiment)r;
document.querySelectorAll("details.experiment").forEach(details => {
  details.open = details.querySelector("summary b").textContent === experiment;
});
const chosen = part.includes("#") ? [...document.querySelectorAll(part)]
  : [...document.querySelectorAll("details[open] section")].filter(
      section => section.querySelector("h3").firstChild.textContent.trim() === part);
if (!chosen.length) document.body.textContent = "";
const hide = element => {
  if (chosen.some(one => one === element)) return;
  if (chosen.some(one => element.contains(one))) [...element.children].forEach(hide);
  else element.style.display = "none";
};
[...document.body.children].forEach(hide);
document.body.style.maxWidth = "none";
document.querySelectorAll("table").forEach(table => { table.style.maxWidth = "none"; });
</script>
"""


@click.command()
@click.option(
    "--report", type=click.Path(path_type=Path, exists=True), required=True, help="What `fastccsa report` wrote."
)
@click.option("--experiment", default="ccsa", show_default=True, help="Experiment whose parts are shown.")
@click.option("--out", type=click.Path(path_type=Path), default=FOLDER, show_default=True, help="Folder of pictures.")
def main(report: Path, experiment: str, out: Path) -> None:
    """Take the pictures."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise click.UsageError(f"none of {', '.join(BROWSERS)} is on the PATH: install Chromium")
    page = report.read_text(encoding="utf-8")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, part in PARTS.items():
            picture = take(
                browser, page.replace("</body>", SCRIPT % locals() + "</body>"), Path(folder), WIDER.get(name, WIDTH)
            )
            if picture is None:
                raise click.UsageError(f"{report} has no part {part!r} of the experiment {experiment!r}")
            picture.save(out / f"{name}.webp", quality=QUALITY, method=6)
            click.echo(f"{name}: {picture.width} x {picture.height}, {(out / f'{name}.webp').stat().st_size:,} bytes")


def take(browser: str, page: str, folder: Path, width: int) -> Image.Image | None:
    """Show a page, and return what is on it without the empty space below; None if it is empty."""
    file, picture = folder / "page.html", folder / "page.png"
    file.write_text(page, encoding="utf-8")
    subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
            "--disable-background-networking", "--disable-sync", f"--user-data-dir={folder / 'profile'}",
            f"--window-size={width},{HEIGHT}", f"--force-device-scale-factor={SCALE}", f"--screenshot={picture}",
            file.as_uri(),
        ],
        capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    shown = Image.open(picture).convert("RGB")
    background = Image.new("RGB", shown.size, shown.getpixel((0, 0)))
    content = ImageChops.difference(shown, background).getbbox()
    if content is None:
        return None
    margin = round(MARGIN * SCALE)
    return shown.crop((0, max(0, content[1] - margin), shown.width, min(shown.height, content[3] + margin)))


if __name__ == "__main__":
    main()
