"""The optional extras: the error about a missing package, and that the table of extras agrees with pyproject.toml."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from click.testing import CliRunner

import fastccsa
from fastccsa.cli import main
from fastccsa.system.extras import EXTRAS, MissingPackageError, install_advice, require

ROOT = Path(__file__).resolve().parents[2]
CORE = {"torch", "numpy", "click"}
# Required by jinja2, by torch, and left out of EXTRAS for the reason that it states.
INDIRECT = {"markupsafe", "typing_extensions", "nvidia"}
# The distributions of the modules of the benchmarks' contestants, of ExecuTorch, of the sweep and of trackers,
# if installed.
NOT_EVERYWHERE = {
    "pykeops": "pykeops", "kornia": "kornia", "executorch": "executorch", "optuna": "optuna", "mlflow": "mlflow-skinny",
    "sqlalchemy": "sqlalchemy", "alembic": "alembic", "wandb": "wandb",
}  # fmt: skip


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(extra: str | None = None) -> set[str]:
    """Return the distributions that pyproject.toml lists for an extra, or for the core."""
    project = pytest.importorskip("tomllib").loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return {normalised(re.split(r"[^\w.-]", entry, maxsplit=1)[0]) for entry in listed}


def imported_by_the_package() -> dict[str, Path]:
    """Return the modules of other packages that the package imports, each with one of the files."""
    found: dict[str, Path] = {}
    for path in (ROOT / "fastccsa").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            found |= {name.partition(".")[0]: path for name in names}
    return {name: path for name, path in found.items() if name not in sys.stdlib_module_names and name != "fastccsa"}


def test_the_core_requires_torch_numpy_and_click_only() -> None:
    assert requirements() == CORE


def test_every_module_is_installed_by_its_extra() -> None:
    distributions = packages_distributions()
    for extra, modules in EXTRAS.items():
        for module in modules:
            names = {normalised(name) for name in distributions.get(module, [NOT_EVERYWHERE.get(module, "none")])}
            assert names & requirements(extra), f"{module} is not in the extra {extra}"


def test_every_import_belongs_to_the_core_or_to_an_extra() -> None:
    known = CORE | INDIRECT | {module for modules in EXTRAS.values() for module in modules}
    unknown = {name: path for name, path in imported_by_the_package().items() if name not in known}
    assert not unknown


@pytest.mark.parametrize(("module", "extra"), [("pandas", "train"), ("onnx.helper", "export")])
def test_a_missing_package_names_its_extra(module: str, extra: str) -> None:
    name = module.partition(".")[0]
    with pytest.raises(MissingPackageError) as caught, install_advice():
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)
    assert str(caught.value) == f"{name} is not installed: pip install 'fastccsa[{extra}]'"
    assert caught.value.name == name
    assert isinstance(caught.value, ImportError)
    assert isinstance(caught.value, fastccsa.InputError)


def test_any_other_missing_module_is_left_as_it_is() -> None:
    error = ModuleNotFoundError("No module named 'pandas_tools'", name="pandas_tools")
    with pytest.raises(ModuleNotFoundError) as caught, install_advice():
        raise error
    assert caught.value is error


def test_a_broken_installation_is_told_from_a_missing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pykeops.py").write_text("import library_that_pykeops_needs\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pykeops", raising=False)
    message = r"pykeops is not usable \(No module named 'library_that_pykeops_needs'\): pip install 'fastccsa\[bench\]'"
    with pytest.raises(MissingPackageError, match=message):
        require("pykeops")


def test_the_command_line_says_it_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def report(*arguments: object) -> None:
        import onnxruntime  # noqa: F401

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(fastccsa.reporting, "report", report)
    result = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "fastccsa: error: onnxruntime is not installed: pip install 'fastccsa[export]'\n"
