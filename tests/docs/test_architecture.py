"""The rules of docs/architecture.md: which modules may import or include which, in the package, csrc and benchmarks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import fastccsa

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(fastccsa.__file__).parent
CSRC = ROOT / "csrc"
FILES = sorted(PACKAGE.rglob("*.py"))

NAMEDTUPLE_METHODS = {"_asdict", "_fields", "_make", "_replace"}


def module_of(path: Path) -> str:
    """Return the full name of the module in a file of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for suffix in ("*.py", "*.pyi") for path in PACKAGE.rglob(suffix)}


def rows() -> dict[str, int]:
    """Return the modules and packages in the first column of the table, with their row numbers."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`fastccsa\b.*?) \|", text, re.M)
    return {name: row for row, cell in enumerate(cells) for name in re.findall(r"`([\w.]+)`", cell)}


def row_of(module: str, table: dict[str, int]) -> int:
    """Return the row of a module, or else of the package that contains it."""
    while module not in table:
        module = module.rpartition(".")[0]
    return table[module]


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the modules of the package that a file imports anywhere, each with the imported name ("" for a module).

    Modules that are imported by their names count too: the values of tables for `lazy_names`, and the arguments of
    `importlib.import_module`.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((name.name, "") for name in node.names if name.name.split(".")[0] == "fastccsa")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fastccsa":
            for name in node.names:
                module = f"{node.module}.{name.name}"
                yield (module, "") if module in MODULES else (str(node.module), name.name)
        elif isinstance(node, ast.Dict):
            yield from ((text, "") for text in constants(node.values) if text in MODULES - {"fastccsa"})
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from ((text, "") for text in constants(node.args) if text in MODULES)


def constants(nodes: list[ast.expr]) -> Iterator[str]:
    return (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def test_every_module_has_a_row_and_every_row_has_a_module() -> None:
    table = rows()
    assert {".".join(module.split(".")[:2]) for module in MODULES} == {".".join(name.split(".")[:2]) for name in table}
    assert set(table) <= MODULES


def test_nothing_imports_from_a_row_below_its_own() -> None:
    table = rows()
    wrong = {
        f"{module_of(path)} imports {other}"
        for path in FILES
        for other, _ in imports(parse(path))
        if row_of(other, table) > row_of(module_of(path), table)
    }
    assert not wrong


def test_the_parts_of_training_are_used_only_by_training() -> None:
    """Other packages import the names that `fastccsa.training` exports."""
    wrong = {
        f"{module_of(path)} imports {other}"
        for path in FILES
        for other, _ in imports(parse(path))
        if other.startswith("fastccsa.training.") and not is_within(module_of(path), "fastccsa.training")
    }
    assert not wrong


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_private_names_are_used_only_where_they_belong() -> None:
    """A private module belongs to the package that contains it, any other private name to its module."""
    wrong = {
        f"{module_of(path)} uses {name}"
        for path in FILES
        for name in (*private_imports(path), *private_attributes(parse(path)))
    }
    assert not wrong


def private_imports(path: Path) -> Iterator[str]:
    """Yield the private names and modules of other packages that a file imports."""
    for module, name in imports(parse(path)):
        parts = module.split(".")
        owners = [".".join(parts[:number]) for number, part in enumerate(parts) if is_private(part)]
        if is_private(name) or not all(is_within(module_of(path), owner) for owner in owners):
            yield f"{module}.{name}" if name else module


def private_attributes(tree: ast.Module) -> Iterator[str]:
    """Yield private attributes of objects other than ``self`` and ``cls`` that the file does not define itself.

    Attributes of objects from other libraries are not checked.
    """
    ours, theirs = imported_names(tree)
    defined = defined_names(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not is_private(node.attr) or node.attr in NAMEDTUPLE_METHODS:
            continue
        owner: ast.AST = node.value
        if isinstance(owner, ast.Name) and owner.id in ("self", "cls"):
            continue
        if isinstance(owner, ast.Call) and ast.unparse(owner) == "super()":
            continue
        while isinstance(owner, ast.Attribute | ast.Call | ast.Subscript):
            owner = owner.func if isinstance(owner, ast.Call) else owner.value
        root = owner.id if isinstance(owner, ast.Name) else ""
        if root in ours or (root not in theirs and node.attr not in defined):
            yield ast.unparse(node)


def imported_names(tree: ast.Module) -> tuple[set[str], set[str]]:
    """Return the names that a file's imports bind: from the package, and from elsewhere."""
    ours, theirs = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in node.names:
                module = (node.module if isinstance(node, ast.ImportFrom) else name.name) or ""
                bound = name.asname or name.name.split(".")[0]
                (ours if module.split(".")[0] == "fastccsa" else theirs).add(bound)
    return ours, theirs


def defined_names(tree: ast.Module) -> set[str]:
    """Return the functions, classes, variables and attributes of ``self`` that a file defines."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            found.add(node.attr)
    return found


LIBRARY = CSRC / "library.cpp"
SOURCES = sorted(path for path in CSRC.rglob("*") if path.suffix in (".h", ".cpp", ".cu", ".cuh"))


def includes(path: Path, pattern: str) -> list[str]:
    return re.findall(rf"^\s*#\s*include\s+{pattern}", path.read_text(encoding="utf-8"), re.M)


def folder_of(path: Path) -> str:
    """Return the folder of csrc that a file belongs to; "" for files directly in csrc."""
    return path.relative_to(CSRC).parent.parts[0] if path.parent != CSRC else ""


def included(path: Path) -> list[Path]:
    """Return the files of csrc that a file includes, by paths from csrc or from its own folder."""
    found = []
    for name in includes(path, r'"(.*?)"'):
        candidates = [folder / name for folder in (CSRC, path.parent) if (folder / name).is_file()]
        assert candidates, f"{path}: there is no {name}"
        found.append(candidates[0].resolve())
    return found


def test_an_op_includes_only_core_and_itself() -> None:
    """Files in core include only core; library.cpp, which registers the ops, may include everything."""
    wrong = {
        f"{path.relative_to(CSRC)} includes {other.relative_to(CSRC)}"
        for path in SOURCES
        for other in included(path)
        if path != LIBRARY and folder_of(other) not in ("core", folder_of(path))
    }
    assert not wrong


def test_kernels_include_neither_torch_nor_python() -> None:
    """Only op.cpp, library.cpp and headers called torch_* know torch, and nothing knows a version of Python.

    A header called torch_* is included only by these.
    """
    wrong = set()
    for path in SOURCES:
        found = list(includes(path, r"<(pybind11/.*?|nanobind/.*?|Python\.h)>"))
        if path != LIBRARY and path.name != "op.cpp" and not is_torch_header(path):
            found += includes(path, r"<((?:torch|ATen|c10)/.*?)>")
            found += [str(other.relative_to(CSRC)) for other in included(path) if is_torch_header(other)]
        wrong |= {f"{path.relative_to(CSRC)} includes {name}" for name in found}
    assert not wrong


def is_torch_header(path: Path) -> bool:
    return path.name.startswith("torch_")


def test_benchmarks_do_not_use_tests() -> None:
    """They neither import tests nor name their files."""
    wrong = set()
    for path in (ROOT / "benchmarks").rglob("*.py"):
        nodes = list(ast.walk(parse(path)))
        names = [name.name for node in nodes if isinstance(node, ast.Import) for name in node.names]
        names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
        names += constants([node for node in nodes if isinstance(node, ast.Constant)])
        wrong |= {f"{path.name} uses {name}" for name in names if re.fullmatch(r"(.*/)?tests([/.].*)?", name)}
    assert not wrong
