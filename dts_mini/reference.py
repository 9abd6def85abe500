"""The API reference: a Markdown page for each module, written from its docstrings.

    python -m dts_mini.reference [FOLDER]

Into ``build/reference`` where no folder is named; the book has the same pages. Nothing is written by hand, and nothing
of it is committed.
"""

import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import dts_mini

PACKAGES = ("dts_mini.core", "dts_mini.ours", "dts_mini.serving", "dts_mini.peers")
MODULES = (
    "dts_mini.hub",
    "dts_mini.streaming.cluster",
    "dts_mini.reproduce",
    "dts_mini.measures.cases",
    "dts_mini.measures.routing",
    "dts_mini.measures.unseen",
    "dts_mini.suites.suite",
    "dts_mini.suites.mini.task",
)


def modules() -> list[ModuleType]:
    """What the reference covers: the core, and the faces that a user imports."""
    names = list(MODULES)
    for package in map(importlib.import_module, PACKAGES):
        names += [f"{package.__name__}.{found.name}" for found in pkgutil.iter_modules(package.__path__)]
    return [importlib.import_module(name) for name in sorted(names)]


def public(owner: ModuleType | type, home: str) -> Iterator[tuple[str, object]]:
    """Public classes and functions of a module or a class, by name, in the order of the source of module ``home``."""
    for name, thing in vars(owner).items():
        thing = thing.fget if isinstance(thing, property) else getattr(thing, "__func__", thing)
        is_own = (inspect.isclass(thing) or inspect.isfunction(thing)) and thing.__module__ == home
        if is_own and not name.startswith("_"):
            yield name, thing


def page(module: ModuleType) -> str:
    """The Markdown of a module: its docstring, and each public name with its signature and docstring."""
    parts = [f"# {module.__name__}", prose(inspect.getdoc(module) or "")]
    for name, thing in public(module, module.__name__):
        parts += [f"## {name}", *_entry(name, thing)]
        if getattr(dts_mini, name, None) is thing:
            parts.append(f"Imported by its short name, too: `dts_mini.{name}`.")
        if inspect.isclass(thing):
            for inner, member in public(thing, module.__name__):
                parts += [f"### {name}.{inner}", *_entry(inner, member)]
    return "\n\n".join(parts) + "\n"


def prose(doc: str) -> str:
    r"""A docstring as Markdown: examples fenced as code; what Markdown takes for HTML or mathematics stays text.

    >>> print(prose("A file ``<name>``, or $3 < 4."))
    A file ``<name>``, or \$3 &lt; 4.
    """
    parts = []
    for part in re.split(r"\n\s*\n", doc):
        if part.lstrip().startswith(">>>"):
            parts.append(f"```pycon\n{part}\n```")
        elif part.startswith("    "):  # a block of code, as Markdown has it
            parts.append(part)
        else:
            spans = re.split(r"(``.+?``|`[^`]+`)", part, flags=re.DOTALL)  # every second one is code
            spans[::2] = [text.replace("<", "&lt;").replace("$", "\\$").replace("*", "\\*") for text in spans[::2]]
            parts.append(re.sub(r"(?<=\.)\n(?=``)", "  \n", "".join(spans)))  # a parameter begins its own line
    return "\n\n".join(parts)


def signature(name: str, thing: object) -> str:
    """How a thing is called: types by their last names, a parameter a line where one line is too long."""
    found = inspect.signature(thing)
    text = _short(f"{name}{found}")
    if len(text) <= 100:
        return text
    lines: list[str] = []
    for parameter in found.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not any(line.startswith("*") for line in lines):
            lines.append("*")
        lines.append(_short(str(parameter)))
    end = (
        ""
        if found.return_annotation is inspect.Signature.empty
        else f" -> {_short(inspect.formatannotation(found.return_annotation))}"
    )
    return f"{name}(\n" + "".join(f"    {line},\n" for line in lines) + f"){end}"


def _short(text: str) -> str:
    """Without the modules of types: ``torch.Tensor`` as Tensor, ``<class 'map'>`` as map; a lambda as three dots."""
    text = re.sub(r"<function [\w.]*<lambda> at \w+>|<factory>", "...", text)
    text = re.sub(r"<(?:class|function|built-in function) '?([\w.]+)'?[^>]*>", r"\1", text)
    return re.sub(r"\b(?:torch(?:\._C)?|collections\.abc|typing|pathlib|dts_mini(?:\.\w+)*)\.(?=[A-Za-z])", "", text)


def write(folder: Path) -> list[Path]:
    """Writes the pages and their index into a folder, which is made where it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    written, rows = [], []
    for module in modules():
        written.append(folder / f"{module.__name__}.md")
        written[-1].write_text(page(module))
        first = (inspect.getdoc(module) or "").split("\n")[0]
        rows.append(f"- [{module.__name__}]({written[-1].name}): {first}")
    (folder / "README.md").write_text("# Reference\n\n" + "\n".join(rows) + "\n")
    return [*written, folder / "README.md"]


def _entry(name: str, thing: object) -> list[str]:
    if inspect.isclass(thing) and issubclass(thing, Exception):  # called by nobody else
        return [prose(inspect.getdoc(thing) or "")]
    return [f"```python\n{signature(name, thing)}\n```", prose(inspect.getdoc(thing) or "")]


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "build/reference")
    print(f"{target}: {len(write(target))} pages")
