"""The notebook runs from the first cell to the last, in a kernel of its own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "folder_to_report.ipynb"


def test_the_notebook_goes_from_a_folder_to_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    assert list((tmp_path / "folder_to_report" / "runs").glob("*/scores.json"))
    page = tmp_path / "folder_to_report" / "report.html"
    assert "ccsa" in page.read_text(encoding="utf-8")
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "baseline" in printed
    assert "report.html" in printed


def test_the_stored_outputs_name_no_folder_of_a_machine() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert '"outputs": []' not in text.replace('"outputs": [],\n   "source": [\n    "import shutil', "")
    outputs = [output for cell in json.loads(text)["cells"] for output in cell.get("outputs", [])]
    printed = "".join(json.dumps(output.get("text", "")) + json.dumps(output.get("data", "")) for output in outputs)
    assert printed
    assert not re.search(r"(?<![\w.:/<>+=-])/[a-z]\w*/\w", printed)  # an absolute path
    assert "site-packages" not in text
