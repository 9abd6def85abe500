"""The book's pages to look things up in: ``docs/`` as it stands there, and the reference, a page for each module."""

import html
import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from bs4 import BeautifulSoup

import dts_mini
from dts_mini import reference
from dts_mini.core.errors import DTSError
from dts_mini.course.markup import markdown
from dts_mini.course.page import Page

LINK = re.compile(r"\]\((?!https?:)([^)#]+\.md)(?:#[^)]*)?\)")
API = "api.html"


def docs(folder: Path) -> list[Page]:
    """The pages of ``folder``, README.md first, then in the order of its links; DTSError for a page without one."""
    first = folder / "README.md"
    order = list(dict.fromkeys([first, *(folder / path for path in LINK.findall(first.read_text()))]))
    if lost := sorted(path.name for path in set(folder.rglob("*.md")) - set(order)):
        raise DTSError(f"{first}: no link leads to {', '.join(lost)}")
    return [of_markdown(path.read_text(), f"docs/{path.relative_to(folder).as_posix()}") for path in order]


def of_markdown(text: str, source: str) -> Page:
    """A page of Markdown; docs/methods/dts.md becomes methods-dts.html, docs/README.md docs.html."""
    stem = source.removeprefix("docs/").removesuffix(".md").replace("/", "-")
    try:
        soup = BeautifulSoup(markdown(text), "html.parser")
    except DTSError as error:
        raise DTSError(f"{source}: {error}") from error
    title = " ".join(soup.h1.get_text().split()) if soup.h1 else stem
    first = soup.select_one("p")
    intro = " ".join(first.get_text().split()) if first else ""
    return Page("docs.html" if stem == "README" else f"{stem}.html", title, str(soup), intro, source)


def api(modules: Iterable[ModuleType] | None = None) -> list[Page]:
    """The reference: first what ``import dts_mini`` brings, then a page for each module, from its docstrings."""
    modules = reference.modules() if modules is None else list(modules)
    file = lambda module: f"api-{module.__name__.removeprefix('dts_mini.').replace('.', '-')}.html"
    pages = []
    for module in modules:
        about = first_line(module)
        pages.append(Page(file(module), module.__name__.removeprefix("dts_mini."), "", about))
        pages[-1].body = markdown(reference.page(module))
    homes = {module.__name__: file(module) for module in modules}
    rows = []
    for name in sorted(dts_mini.__all__, key=str.lower):
        thing = getattr(dts_mini, name)
        if home := homes.get(getattr(thing, "__module__", "")):
            rows.append((f'<a href="{home}#{name}"><code>{name}</code></a>', first_line(thing)))
    listed = [
        (f'<a href="{page.file}"><code>{name}</code></a>', page.intro) for name, page in zip(homes, pages, strict=True)
    ]
    body = (
        "<h1>Reference</h1><p>Everything public of the core and of the faces that a program imports, from the "
        "docstrings. <a href='docs.html'>The documentation</a> says how to use it; "
        "<code>dts_mini.core.paper</code> is the method on one page.</p>"
        f"<h2>What <code>import dts_mini</code> brings</h2>{table('name', 'what it is', rows)}"
        f"<h2>Modules</h2>{table('module', 'what it holds', listed)}"
    )
    return [Page(API, "Reference", body), *pages]


def first_line(thing: object) -> str:
    """The first sentence of a docstring, or what of it stands on its first line."""
    return (inspect.getdoc(thing) or "").split("\n")[0]


def table(left: str, right: str, rows: Iterable[tuple[str, str]]) -> str:
    """Two columns: HTML, and docstrings' text with its ``code``."""
    code = lambda text: re.sub(r"``(.+?)``", r"<code>\1</code>", html.escape(text))
    body = "".join(f'<tr><th scope=row>{a}</th><td data-label="{right}">{code(b)}</td></tr>' for a, b in rows)
    return (
        f'<table class="names cards"><thead><tr><th scope=col>{left}</th><th scope=col>{right}</th></tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )
