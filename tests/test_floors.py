"""Floors: a lower one never imports a higher one. Read from the source, imports within functions included."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dts_mini"
CORE = sorted((PACKAGE / "core").glob("*.py"))
SUITES = sorted((PACKAGE / "suites").rglob("*.py"))
SERVING = sorted((PACKAGE / "serving").glob("*.py"))

# Within the core a module may import those that stand in a line above its own.
ORDER = [
    {"errors"},
    {"packing", "tensor", "state", "coding", "budget"},
    {"file"},
    {"checkpoint", "container", "parts"},
    {"work"},
    {"differences"},
    {"dts", "drc"},
    {"delta"},
    {"merging", "personal"},
    {"fusion", "routing"},
]
LIBRARIES = {"constriction", "msgspec", "numpy", "safetensors", "torch", "xxhash"}


def imported(source: str, module: str = "dts_mini.core.here") -> set[str]:
    """Dotted names of all that a module's source imports, relative imports resolved, ``from a import b`` as a.b."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: -node.level] if node.level else []
            origin = ".".join([*parents, *([node.module] if node.module else [])])
            names |= {f"{origin}.{alias.name}" for alias in node.names}
    return names


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def floor(name: str) -> int:
    (found,) = [i for i, modules in enumerate(ORDER) if name in modules]
    return found


def test_the_reader_of_imports_sees_every_form_wherever_it_stands():
    source = """
import a.b as c
from d import e, f
def late():
    from ..suites import g
    from . import h
    from .i import j
"""
    found = {"a.b", "d.e", "d.f", "dts_mini.suites.g", "dts_mini.core.h", "dts_mini.core.i.j"}
    assert imported(source, "dts_mini.core.here") == found


def test_every_module_of_the_core_stands_on_one_floor():
    assert {path.stem for path in CORE} - {"__init__"} == set().union(*ORDER)


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_the_core_imports_the_core_and_its_few_libraries_alone(path):
    for name in imported(path.read_text()):
        top = name.split(".")[0]
        assert within(name, "dts_mini.core") or top in LIBRARIES or top in sys.stdlib_module_names, name


@pytest.mark.parametrize("path", [path for path in CORE if path.stem != "__init__"], ids=lambda path: path.stem)
def test_a_module_of_the_core_imports_lower_floors_alone(path):
    for name in imported(path.read_text()):
        if within(name, "dts_mini"):
            assert floor(name.split(".")[2]) < floor(path.stem), name


@pytest.mark.parametrize("path", SERVING, ids=lambda path: path.stem)
def test_serving_imports_the_core_and_its_few_libraries_alone(path):
    for name in imported(path.read_text(), f"dts_mini.serving.{path.stem}"):
        top = name.split(".")[0]
        own = within(name, "dts_mini.core") or within(name, "dts_mini.serving")
        assert own or top in LIBRARIES or top in sys.stdlib_module_names, name


@pytest.mark.parametrize("path", SUITES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_suites_import_neither_the_command_line_nor_figures(path):
    for name in imported(path.read_text(), ".".join(path.relative_to(ROOT).with_suffix("").parts)):
        for face in ("cli", "__main__", "figures", "course"):
            assert not within(name, f"dts_mini.{face}"), name


def test_importing_the_package_and_its_command_line_loads_no_heavy_library():
    heavy = {"open_clip", "torchvision", "matplotlib", "mlxtend", "sklearn"}
    code = f"import sys, dts_mini, dts_mini.cli; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
