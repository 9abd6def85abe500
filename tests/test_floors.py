"""Floors: a lower one never imports a higher one. Read from the source, imports within functions included."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dts_mini"
CORE = sorted((PACKAGE / "core").glob("*.py"))
SERVING = sorted((PACKAGE / "serving").glob("*.py"))

# The order of the core: the list in its docstring. A module may import those that stand above it.
ORDER = re.findall(r"^    (\w+)  ", (PACKAGE / "core" / "__init__.py").read_text(), re.MULTILINE)
# The one list of floors: the table in CONTRIBUTING.md.
TABLE = re.compile(r"^\| (\d+) \| (`.+?`) \| ", re.MULTILINE)
FLOORS = {
    name: int(number)
    for number, names in TABLE.findall((ROOT / "CONTRIBUTING.md").read_text())
    for name in re.findall(r"`(\w+)`", names)
}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
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


def imports(module: str) -> set[str]:
    """The modules of the package, but itself, that a module imports, wherever it does so."""
    path = MODULES[module]
    here = f"{module}.__init__" if path.stem == "__init__" else module
    found = {name for name in imported(path.read_text(), here) if within(name, "dts_mini")}
    return {_owner(name) for name in found} - {module}


def _owner(name: str) -> str:
    """The module that a dotted name is in, or is."""
    return name if name in MODULES else _owner(name.rpartition(".")[0])


def stands_in(module: str) -> str:
    """The package of a module, or the module itself, as the table names it."""
    first = module.split(".")[1:2]
    return "cli" if first == ["__main__"] else first[0] if first else "dts_mini"


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def floor(name: str) -> int:
    return ORDER.index(name)


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


def test_every_module_of_the_core_stands_in_its_order_once():
    assert sorted(path.stem for path in CORE if path.stem != "__init__") == sorted(ORDER)


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


def test_all_of_the_package_stands_on_a_floor():
    assert {stands_in(module) for module in MODULES} == set(FLOORS)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_its_own_package_and_lower_floors_alone(module):
    own = stands_in(module)
    for name in imports(module):
        assert stands_in(name) == own or FLOORS[stands_in(name)] < FLOORS[own], name


@pytest.mark.parametrize("name", [name for name in FLOORS if (PACKAGE / name).is_dir()])
def test_a_packages_docstring_names_its_floor_first(name):
    docstring = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text()))
    assert docstring.startswith(f"Floor {FLOORS[name]}: ")


def test_nothing_else_speaks_of_floors():
    text = {module: path.read_text() for module, path in MODULES.items()}
    assert [m for m, t in text.items() if re.search(r"\b(ground|first|second|third|top) floor\b", t, re.I)] == []


def test_no_modules_import_each_other_in_a_circle():
    try:
        TopologicalSorter({module: imports(module) for module in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_no_line_of_the_package_is_longer_than_120_characters():
    long = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in MODULES.values()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > 120
    ]
    assert long == []


def test_importing_the_package_and_its_command_line_loads_no_heavy_library():
    heavy = {"open_clip", "torchvision", "matplotlib", "mlxtend", "sklearn"}
    code = f"import sys, dts_mini, dts_mini.cli; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


DEFAULTED = {"empty", "zeros", "ones", "rand", "randn", "eye", "linspace", "tensor"}  # whose dtype may be the default
MADE = DEFAULTED | {"full", "arange", "randint", "randperm"}


@pytest.mark.parametrize("name", [n for n in MODULES if 1 <= FLOORS.get((n + ".").split(".")[1], 0) <= 3])
def test_no_tensor_is_made_on_the_default_device_or_of_the_default_dtype_which_are_the_callers(name):
    for call in (node for node in ast.walk(ast.parse(MODULES[name].read_text())) if isinstance(node, ast.Call)):
        named = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        if named in MADE and getattr(call.func.value, "id", "") == "torch":
            given = {word.arg for word in call.keywords}
            wanted = {"device", "dtype"} if named in DEFAULTED else {"device"}
            assert None in given or wanted <= given, f"line {call.lineno}: torch.{named} without {wanted - given}"
