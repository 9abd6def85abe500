"""The book: the solved notebooks as static pages that open from disk, without a network: ``python -m dts_mini.course.book``.

Each notebook goes through nbconvert's bare template into our own page (``assets/page.html.j2``). Mathematics becomes
MathML while the page is built, code is coloured by pygments, search and sliders are plain scripts with their data in
``.js`` files (a page on disk may not fetch): no page loads anything from elsewhere.
"""

import argparse
import base64
import html
import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import jinja2
import latex2mathml.converter
import nbformat
from bs4 import BeautifulSoup, Tag
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from pygments.styles import get_style_by_name
from pygments.token import STANDARD_TYPES

from dts_mini.core.errors import DTSError
from dts_mini.core.file import read_bytes, write_bytes
from dts_mini.course import sliders, timings
from dts_mini.course.build import function_of, is_exercise, stub
from dts_mini.suites.tables import markdown as table_markdown

ROOT = Path(__file__).parents[2]
ASSETS = Path(__file__).parent / "assets"


@dataclass
class Page:
    """A page of the book: ``body`` is HTML; headings (level, id, text) and sections (id, heading, text) are read from it."""

    file: str
    title: str
    body: str
    intro: str = ""
    headings: list[tuple[int, str, str]] = field(default_factory=list)
    sections: list[tuple[str, str, str]] = field(default_factory=list)


def build(notebooks: Path, out: Path, *, data: Mapping, grids: Mapping[str, Mapping], texts: Path) -> list[Page]:
    """Writes the book of the executed ``notebooks/*.ipynb`` into ``out`` and returns its pages.

    ``data``: results (``{"headline": table, "unseen": table}``), paper and timings, as ``main`` reads them. ``grids``: of
    ``sliders.grids``. ``texts`` holds index.md and glossary.md. DTSError, naming the page, for a figure without alt
    text, mathematics that cannot be set, and links that lead nowhere.
    """
    found = sorted(notebooks.glob("[0-9]*.ipynb"))
    if not found:
        raise DTSError(f"{notebooks}: there are no notebooks; build them with make notebooks")
    chapters = [notebook_page(path, grids) for path in found]
    results, paper, measured = (data[name] for name in ("results", "paper", "timings"))
    extra = [
        Page("sliders.html", "Sliders", sliders_body(grids)),
        Page("results.html", "The paper and ours", results_body(results, paper)),
        Page("timings.html", "Timings", timings_body(measured, chapters)),
        Page("glossary.html", "Glossary", glossary_body((texts / "glossary.md").read_text(), chapters)),
    ]
    index = Page("index.html", "Start", "")
    for page in chapters:
        finish(page, chapters)
    index.body = markdown((texts / "index.md").read_text()).replace("<p>[route]</p>", route(chapters, measured))
    for page in (index, *extra):
        finish(page, chapters)
    pages = [index, *chapters, *extra]
    (out / "assets").mkdir(parents=True, exist_ok=True)
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(ASSETS), autoescape=True, trim_blocks=True)
    template = environment.get_template("page.html.j2")
    for number, page in enumerate(pages):
        before, after = (pages[number - 1] if number else None), (pages[number + 1 :] or [None])[0]
        put(template.render(page=page, pages=pages, extra=extra, before=before, after=after), out / page.file)
    for name in ("book.js", "sliders.js", "OFL.txt"):
        shutil.copyfile(ASSETS / name, out / "assets" / name)
    put((ASSETS / "book.css").read_text() + code_colours(), out / "assets/book.css")
    put(math_font(ASSETS / "stix-two-math.woff2"), out / "assets/math.css")
    put("window.GRIDS = " + script_json(dict(grids)), out / "assets/grids.js")
    entries = [[page.file, page.title, *section] for page in pages for section in page.sections]
    put("window.SEARCH = " + script_json(entries), out / "assets/search.js")
    if lost := broken_links(out):
        raise DTSError("links that lead nowhere:\n  " + "\n  ".join(lost))
    return pages


# Notebooks


class _Markdown(IPythonRenderer):
    def block_math(self, body: str) -> str:
        return mathml(body, "block")

    def inline_math(self, body: str) -> str:
        return mathml(body, "inline")

    def latex_environment(self, name: str, body: str) -> str:
        return mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")


class _Exporter(HTMLExporter):
    """nbconvert's bare HTML, with our markdown."""

    def markdown2html(self, source: str) -> str:
        return markdown(source)


def markdown(text: str) -> str:
    """Markdown as HTML, mathematics as MathML."""
    return MarkdownWithMath(renderer=_Markdown(escape=False, exclude_anchor_links=True)).render(text)


def mathml(latex: str, display: str) -> str:
    """A formula as MathML, which browsers set by themselves; DTSError when it holds what cannot be translated."""
    braces = re.sub(r"\\.", "", latex)  # without \{ and \}
    if braces.count("{") != braces.count("}"):
        raise DTSError(f"the formula {latex!r} has a brace too many or too few")
    try:
        text = latex2mathml.converter.convert(latex.strip(), display=display)
    except Exception as error:
        raise DTSError(f"the formula {latex!r} cannot be read: {type(error).__name__} {error}") from error
    if "\\" in text or "<mi>&</mi>" in text:
        raise DTSError(f"the formula {latex!r} holds what is not known: {text}")
    # Bars of a norm are fences that keep their height, names of functions stand close, a hat covers one letter.
    text = re.sub(r"<mo>(&#x02016;|&#x0007C;)</mo>", r'<mo stretchy="false" lspace="0" rspace="0">\1</mo>', text)
    text = re.sub(r"<mo>([a-z]{2,})</mo>", r"<mi>\1</mi>", text)
    text = text.replace("<mo>&#x0005E;</mo></mover>", '<mo stretchy="false">&#x002C6;</mo></mover>')
    text = text.replace("<math ", f'<math alttext="{html.escape(latex.strip())}" ', 1)
    return f'<span class="formula" tabindex="0">{text}</span>' if display == "block" else text


def notebook_page(path: Path, grids: Mapping[str, Mapping]) -> Page:
    """One executed notebook as a page; links and headings are left to ``finish``."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code" and (asked := re.search(r"\bwidget\(['\"]([\w ]+)['\"]\)", cell.source)):
            shown = sliders.figure_html(asked[1], grids[asked[1]])
            cell.outputs = [nbformat.v4.new_output("display_data", {"text/html": shown})]
    options = {"exclude_input_prompt": True, "exclude_output_prompt": True}
    try:
        body, _ = _Exporter(template_name="basic", **options).from_notebook_node(notebook)
    except DTSError as error:
        raise DTSError(f"{path.name}: {error}") from error
    soup = BeautifulSoup(body, "html.parser")
    for image in soup.select(".output img"):
        if image.get("alt", "").startswith("No description"):
            where = image.find_parent(class_="cell").get("id", "")
            raise DTSError(f"{path.name}, cell {where.removeprefix('cell-id=')}: a figure has no alt text; use show()")
    for cell in filter(is_exercise, notebook.cells):
        fold_solution(soup, soup.find(id=f"cell-id={cell.id}"), cell.source)
    title = soup.h1.get_text().strip() if soup.h1 else path.stem
    first = soup.select_one("p")
    return Page(f"{path.stem}.html", title, str(soup), " ".join(first.get_text().split()) if first else "")


def fold_solution(soup: BeautifulSoup, cell: Tag, code: str) -> None:
    """Shows what the learner gets of an exercise cell, and folds the solution under it."""
    details, summary = soup.new_tag("details", attrs={"class": "solution"}), soup.new_tag("summary")
    summary.string = f"Solution of {function_of(code).name}"
    solution = cell.select_one(".input")
    solution.wrap(details)
    details.insert(0, summary)
    shown = highlight(stub(code), PythonLexer(), HtmlFormatter())
    details.insert_before(BeautifulSoup(f'<div class="input">{shown}</div>', "html.parser"))


# Every page


def finish(page: Page, chapters: list[Page]) -> None:
    """Gives headings their ids (Jupyter's) and links, notebook links their pages, and reads what search needs."""
    soup = BeautifulSoup(page.body, "html.parser")
    taken: set[str] = set()
    for heading in soup.select("h1, h2, h3"):
        text = " ".join(readable(heading).split())
        ident = base = heading.get("id") or text.replace(" ", "-")
        while ident in taken:
            ident = f"{base}-{sum(t.startswith(base) for t in taken) + 1}"
        taken.add(ident)
        heading["id"] = ident
        page.headings.append((int(heading.name[1]), ident, text))
        anchor = soup.new_tag("a", attrs={"class": "anchor", "href": f"#{ident}", "aria-label": f"Link to {text}"})
        anchor.string = "#"
        if heading.name != "h1":
            heading.append(anchor)
    names = {chapter.file.removesuffix(".html") for chapter in chapters}
    for link in soup.select("a[href]"):
        target = urlsplit(link["href"])
        if target.path.endswith(".ipynb") and not target.scheme and (stem := Path(target.path).stem) in names:
            link["href"] = f"{stem}.html" + (f"#{target.fragment}" if target.fragment else "")
        elif target.path.endswith("glossary.md") and not target.scheme:
            link["href"] = "glossary.html" + (f"#{target.fragment}" if target.fragment else "")
    for table in soup.select("table"):
        if not table.find_parent(class_="scroll"):
            table.wrap(soup.new_tag("div", attrs={"class": "scroll", "tabindex": "0"}))
    page.sections = list(sections(soup))
    page.body = str(soup)


def sections(soup: BeautifulSoup) -> Iterator[tuple[str, str, str]]:
    """(id, heading, text) of each section, for search; code and prose, no mathematics, no figures."""
    ident, title, words = "", "", []
    for element in soup.find_all(["h1", "h2", "h3", "p", "li", "td", "th", "pre", "summary", "figcaption", "dd"]):
        if element.name in ("h1", "h2", "h3"):
            if ident:
                yield ident, title, " ".join(words)
            ident, title, words = element["id"], " ".join(readable(element).split()), []
        elif not element.find_parent(["li", "td", "th", "dd", "figcaption"]):
            words += readable(element).split()
    if ident:
        yield ident, title, " ".join(words)


def readable(element: Tag) -> str:
    """An element's text without its own link, mathematics as its source."""
    if element.name is None:
        return str(element)
    if element.name == "math":
        return element.get("alttext", "")
    if "anchor" in element.get("class", []):
        return ""
    return "".join(readable(child) if isinstance(child, Tag) else str(child) for child in element.children)


def broken_links(out: Path) -> list[str]:
    """The links, scripts, styles and images of the book's pages that lead nowhere in it; hyperlinks to the web are left."""
    soups = {path.name: BeautifulSoup(path.read_text(), "html.parser") for path in out.glob("*.html")}
    ids = {name: {tag["id"] for tag in soup.select("[id]")} for name, soup in soups.items()}
    lost = []
    for name, soup in soups.items():
        for tag in soup.select("[href], [src]"):
            url = tag.get("href", tag.get("src"))
            target = urlsplit(url)
            if target.scheme in ("data", "mailto") or (tag.name == "a" and target.scheme in ("http", "https")):
                continue
            file = unquote(target.path) or name
            here = not target.scheme and (out / file).is_file()
            if not here or (target.fragment and unquote(target.fragment) not in ids.get(file, ())):
                lost.append(f"{name}: {url}")
    return lost


# The pages beside the notebooks


def route(chapters: list[Page], measured: Mapping) -> str:
    """The way through the course: each notebook, what you can do after it, its running time."""
    seconds = measured.get("seconds", {})
    items = []
    for page in chapters:
        time = seconds.get(page.file.removesuffix(".html"))
        took = f' <span class="took">runs in {time:.0f} s</span>' if time else ""
        items.append(f'<li><a href="{page.file}">{html.escape(page.title)}</a>{took}<br>{html.escape(page.intro)}</li>')
    return f'<ol class="route">{"".join(items)}</ol>'


def sliders_body(grids: Mapping[str, Mapping]) -> str:
    """All sliders on one page."""
    intro = (
        "<h1>Sliders</h1><p>Move a slider with the mouse or the arrow keys. Every value was computed beforehand by the "
        "code of the course; the same sliders run in Jupyter: <code>dts_mini.course.sliders.widget(name)</code>.</p>"
    )
    return intro + "".join(f"<h2>{name.capitalize()}</h2>{sliders.figure_html(name, g)}" for name, g in grids.items())


def results_body(results: Mapping, paper: Mapping) -> str:
    """The paper's numbers beside ours, why they differ, and our two tables whole."""
    rows = "".join(
        f"<tr><th scope=row>{html.escape(row['what'])}</th><td>{html.escape(row['paper'])}<br>"
        f'<span class="source">{html.escape(row["source"])}</span></td>'
        f"<td>{html.escape(ours(results, row['ours']))}</td><td>{html.escape(row['why'])}</td></tr>"
        for row in paper["rows"]
    )
    parts = [
        "# The paper and ours\n\n" + paper["about"],
        '\n\n<table class="paper"><thead><tr><th scope=col></th><th scope=col>the paper, real suite</th>'
        "<th scope=col>ours, mini suite</th><th scope=col>why they differ</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>\n\n",
    ]
    for table in (results["headline"], results["unseen"]):
        about = f"Accuracy in % on {table['split']} images of the {table['suite']} suite; brackets: 95 % bootstrap intervals."
        if any("storage" in row for row in table["rows"]):
            about += (
                " *Storage* is what each task adds to the one shared model: its file's bytes, as a share of an expert."
            )
        parts.append(f"## Ours: {table['title']}\n\n{about}\n\n{table_markdown(table)}\n{provenance(table)}\n\n")
    return markdown("".join(parts))


def ours(results: Mapping, where: Mapping | None) -> str:
    """The entry of our tables that a row of the paper's table points to, as text."""
    if where is None:
        return "not at this scale"
    rows = {row["name"]: row for row in results[where["table"]]["rows"]}
    if where["row"] not in rows:
        raise DTSError(f"data/paper.json points to {where['row']!r}: the {where['table']} table has {', '.join(rows)}")
    entry = rows[where["row"]][where["entry"]]
    if where["entry"] == "storage":
        return f"{100 * entry:.2f} %"
    show = lambda e: f"{100 * e['value']:.1f} [{100 * e['low']:.1f}, {100 * e['high']:.1f}]"
    if where["entry"] == "accuracy":
        return "; ".join(f"{task} {show(e)}" for task, e in entry.items())
    return show(entry)


def timings_body(measured: Mapping, chapters: list[Page]) -> str:
    """How long each notebook took, where and when."""
    seconds = measured.get("seconds", {})
    rows = [(page, seconds.get(page.file.removesuffix(".html"))) for page in chapters]
    lines = [f"| [{p.title}]({p.file}) | {'not measured' if t is None else f'{t:.0f}'} |" for p, t in rows]
    total = f"| **in all** | **{sum(t for _, t in rows if t is not None):.0f}** |"
    head = "# Timings\n\nHow long each notebook runs, from its first cell to its last, start of Python included.\n\n"
    return markdown(head + "\n".join(["| notebook | seconds |", "|---|---:|", *lines, total, "", provenance(measured)]))


def provenance(entry: Mapping) -> str:
    """When and where something was measured, as a line of Markdown."""
    made = entry.get("provenance")
    if not made:
        return "Not measured yet."
    packages = ", ".join(f"{name} {version}" for name, version in made.get("packages", {}).items())
    return f"*Measured {made['made'][:10]} on {made['machine']}, Python {made['python']}, {packages}.*"


def glossary_body(text: str, chapters: list[Page]) -> str:
    """The glossary: a heading a term; ``First used: 02.`` becomes a link to the notebook of that number."""
    pages = {page.file[:2]: page for page in chapters}

    def link(match: re.Match) -> str:
        page = pages.get(match[1])
        return f"First used: [notebook {match[1]}]({page.file})." if page else f"First used: {match[1]}."

    return markdown(re.sub(r"First used: (\d\d)\.", link, text))


# Assets


def code_colours(light: str = "xcode", dark: str = "github-dark") -> str:
    """CSS of pygments' classes, each with its colour in both themes."""
    styles = [get_style_by_name(light), get_style_by_name(dark)]
    lines = []
    for token, name in STANDARD_TYPES.items():
        day, night = (style.style_for_token(token) for style in styles)
        if name and (day["color"] or night["color"]):
            colours = [f"#{look['color']}" if look["color"] else "inherit" for look in (day, night)]
            colours = ["var(--text)" if colour == "inherit" else colour for colour in colours]
            bold = ";font-weight:600" if day["bold"] or night["bold"] else ""
            lines.append(f".highlight .{name}{{color:light-dark({','.join(colours)}){bold}}}")
    return "\n".join(lines) + "\n"


def math_font(path: Path) -> str:
    """CSS with a font for mathematics in it: few systems have one, and a page on disk may not load a font file."""
    data = base64.b64encode(path.read_bytes()).decode()
    face = f'font-family: "STIX Two Math"; src: url("data:font/woff2;base64,{data}") format("woff2")'
    return f'@font-face {{ {face} }}\nmath {{ font-family: "STIX Two Math", math, serif }}\n'


def script_json(value: object) -> str:
    """JSON that may stand in a script file."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/") + ";\n"


def put(text: str, path: Path) -> None:
    write_bytes(text.encode(), path, overwrite=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Builds the static book from the solved, executed notebooks.")
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks/solved")
    parser.add_argument("--data", type=Path, default=ROOT / "data/mini", help="checkpoints and results.json")
    parser.add_argument("--timings", type=Path, default=timings.PATH, help="seconds by notebook")
    parser.add_argument("--out", type=Path, default=ROOT / "build/book")
    options = parser.parse_args()
    from dts_mini.suites.mini.suite import MiniSuite  # open_clip takes seconds to import

    try:
        results = json.loads(read_bytes(options.data / "results.json"))
        seconds = json.loads(options.timings.read_bytes()) if options.timings.exists() else {}
        data = {"results": results, "timings": seconds, "paper": json.loads(read_bytes(ROOT / "data/paper.json"))}
        grids = sliders.grids(MiniSuite(options.data), results)
        pages = build(options.notebooks, options.out, data=data, grids=grids, texts=ROOT / "notebooks")
    except DTSError as error:
        print(f"book: {error}", file=sys.stderr)
        return 1
    print(f"{len(pages)} pages; open {options.out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
