"""The book: the solved notebooks as static pages that open from disk, without a network (``make book``).

Here: the notebooks, and what puts all pages together. ``page``: what every page is given; ``beside``: the pages beside
the notebooks; ``library``: ``docs/`` and the reference.

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
import struct
import sys
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import jinja2
import nbformat
from bs4 import BeautifulSoup, Tag
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from dts_mini.core.errors import DTSError
from dts_mini.core.file import read_bytes, write_bytes
from dts_mini.course import claims, front, kit, launch, library, sliders, timings
from dts_mini.course.beside import (
    BESIDE,
    claims_body,
    front_body,
    glossary_body,
    launch_body,
    paper_body,
    route,
    sliders_body,
    timings_body,
)
from dts_mini.course.build import function_of, is_exercise, stub
from dts_mini.course.exercises import EXERCISES
from dts_mini.course.folding import ANSWER, SUMMARIES, folded
from dts_mini.course.markup import Exporter, code_colours, markdown
from dts_mini.course.page import Page, finish

ROOT = Path(__file__).parents[2]
ASSETS = Path(__file__).parent / "assets"
USE, FOLDED = "07", ("Look it up", "The code")  # the first chapter of the second part; folded in the contents
GENERATOR = '<meta name="generator" content="dts_mini.course.book">'


def build(
    notebooks: Path,
    out: Path,
    *,
    data: Mapping,
    grids: Mapping[str, Mapping],
    texts: Path,
    docs: Sequence[Page] = (),
    api: Sequence[Page] = (),
) -> list[Page]:
    """Writes the book of the executed ``notebooks/*.ipynb`` into ``out`` and returns its pages.

    ``data``: results (``{"headline": table, "unseen": table}``), paper, timings, and where they are known the recorded
    claims (a list) and the repository (owner/name), as ``course_book`` reads them. ``grids``: of ``sliders.grids``.
    ``texts`` holds index.md, instructor.md and glossary.md; ``docs`` and ``api`` are of ``library``. Pages of an older
    build are removed. DTSError, naming the page, for a figure without alt text, mathematics that cannot be set, places
    of the texts that cannot be filled, and links that lead nowhere.
    """
    found = sorted(notebooks.glob("[0-9]*.ipynb"))
    if not found:
        raise DTSError(f"{notebooks}: there are no notebooks; build them with make notebooks")
    results, paper, measured = (data[name] for name in ("results", "paper", "timings"))
    records, where = data.get("claims", []), data.get("repository")
    chapters = [notebook_page(path, grids, records, where) for path in found]
    lessons = [kit.lesson(path, EXERCISES) for path in found]
    instructor = kit.fill((texts / "instructor.md").read_text(), lessons, EXERCISES)
    glossary = glossary_body((texts / "glossary.md").read_text(), chapters)
    extra = [
        Page("sliders.html", "Sliders", sliders_body(grids)),
        Page("paper.html", "The paper and ours", paper_body(results, paper)),
        Page("claims.html", "Claims", claims_body(records, chapters)),
        Page("timings.html", "Timings", timings_body(measured, chapters)),
        Page("instructor.html", "For instructors", instructor, source="notebooks/instructor.md"),
        Page("glossary.html", "Glossary", glossary, source="notebooks/glossary.md"),
    ]
    start = kit.PLACE.sub(r"[\1]", (texts / "index.md").read_text()).replace("[beside]\n", BESIDE.lstrip())
    index = Page("index.html", "Start", markdown(start), source="notebooks/index.md")
    index.body = index.body.replace("<p>[picture]</p>", front_body(results))
    part = lambda match: route(chapters, lessons, measured, match[1].strip())
    index.body = re.sub(r"<p>\[route( \d\d to \d\d|)\]</p>", part, index.body)
    index.body = index.body.replace("<p>[launch]</p>", launch_body(where))
    groups = {
        "": [index],
        "Build it": [page for page in chapters if page.file < USE],
        "Use it": [page for page in chapters if page.file >= USE],
        "Beside the chapters": extra,
        "Look it up": list(docs),
        "The code": list(api),
    }
    pages = [page for group in groups.values() for page in group]
    places = {page.source: page.file for page in pages if page.source}
    for page in pages:
        finish(page, places, where)
    (out / "assets").mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.html"):
        if GENERATOR in old.read_text():
            old.unlink()
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(ASSETS), autoescape=True, trim_blocks=True)
    template = environment.get_template("page.html.j2")
    for number, page in enumerate(pages):
        before, after = (pages[number - 1] if number else None), (pages[number + 1 :] or [None])[0]
        about = {"generator": GENERATOR, "page": page, "groups": groups, "folded": FOLDED}
        put(template.render(before=before, after=after, **about), out / page.file)
    for name in ("book.js", "search.js", "sliders.js", "OFL.txt"):
        shutil.copyfile(ASSETS / name, out / "assets" / name)
    put((ASSETS / "book.css").read_text() + code_colours(), out / "assets/book.css")
    put(math_font(ASSETS / "stix-two-math.woff2"), out / "assets/math.css")
    put(front.picture(results["headline"]), out / "assets" / front.PATH.name)
    put("window.GRIDS = " + script_json(dict(grids)), out / "assets/grids.js")
    entries = [[page.file, page.title, *section] for page in pages for section in page.sections]
    put("window.ENTRIES = " + script_json(entries), out / "assets/entries.js")
    if lost := broken_links(out):
        raise DTSError("links that lead nowhere:\n  " + "\n  ".join(lost))
    return pages


# Notebooks


def notebook_page(
    path: Path, grids: Mapping[str, Mapping], records: Sequence[Mapping] = (), where: str | None = None
) -> Page:
    """One executed notebook as a page, with what its claims measured; links and headings are left to ``finish``."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code" and (asked := re.search(r"\bwidget\(['\"]([\w ]+)['\"]\)", cell.source)):
            if asked[1] not in grids:
                raise DTSError(
                    f"{path.name}, cell {cell.id}: there is no slider {asked[1]!r}: choose {', '.join(grids)}"
                )
            shown = sliders.figure_html(asked[1], grids[asked[1]])
            cell.outputs = [nbformat.v4.new_output("display_data", {"text/html": shown})]
    options = {"exclude_input_prompt": True, "exclude_output_prompt": True}
    try:
        body, _ = Exporter(template_name="basic", **options).from_notebook_node(notebook)
    except DTSError as error:
        raise DTSError(f"{path.name}: {error}") from error
    soup = BeautifulSoup(body, "html.parser")
    for image in soup.select(".output img"):
        if image.get("alt", "").startswith("No description"):
            where = image.find_parent(class_="cell").get("id", "")
            raise DTSError(f"{path.name}, cell {where.removeprefix('cell-id=')}: a figure has no alt text; use show()")
        width, height = struct.unpack(
            ">II", base64.b64decode(image["src"].partition(",")[2][:32])[16:24]
        )  # PNG's header
        if width > 1.75 * height:
            image.wrap(soup.new_tag("div", attrs={"class": "wide", "tabindex": "0"}))
    plumbing = folded(notebook.cells)
    places = {tag["id"]: tag for tag in soup.find_all(id=True)}
    for cell in notebook.cells:
        shown = places.get(f"cell-id={cell.id}")
        kind = plumbing.get(cell.id)
        if is_exercise(cell):
            fold_solution(soup, shown, cell.source)
        elif kind == "answer":
            output = shown.select_one(".output_wrapper")
            details = fold(soup, shown.select_one(".input"), ANSWER)
            details.extend([output] if output else [])
        elif kind:
            fold(soup, shown.select_one(".input"), SUMMARIES[kind])
    mark_claims(soup, [record for record in records if record["notebook"] == path.stem])
    title = soup.h1.get_text().strip() if soup.h1 else path.stem
    first = soup.select_one("p")
    if where and soup.h1:
        ways = (f'<a href="{html.escape(url)}">{name}</a>' for name, url in launch.links(where, path.stem).items())
        soup.h1.insert_after(
            BeautifulSoup(f'<p class="launch">Open this notebook at {" or ".join(ways)}</p>', "html.parser")
        )
    intro = " ".join(first.get_text().split()) if first else ""
    return Page(f"{path.stem}.html", title, str(soup), intro, f"notebooks/{path.stem}.ipynb")


def mark_claims(soup: BeautifulSoup, records: Sequence[Mapping]) -> None:
    """Gives each printed claim an id to link to and sets what was measured apart; one without a record has no id."""
    left = {record["sentence"]: record for record in records}
    for pre in soup.select(".output_stdout pre"):
        lines = pre.get_text().removesuffix("\n").split("\n")
        found = [claims.PRINTED.fullmatch(line) for line in lines]
        if not any(found):
            continue
        pre.clear()
        for line, match in zip(lines, found, strict=True):
            if match is None:
                pre.append(f"{line}\n")
                continue
            record = left.pop(match["sentence"], None)
            shown = soup.new_tag(
                "span", attrs={"class": "claim"} | ({"id": f"claim-{record['name']}"} if record else {})
            )
            number = soup.new_tag("span", attrs={"class": "measured"})
            number.string = f"measured {match['measured']}"
            shown.extend([match["holds"] + match["sentence"], " ", number])
            pre.extend([shown, "\n"])


def fold(soup: BeautifulSoup, element: Tag, title: str) -> Tag:
    """Puts an element under a line that opens it."""
    details, summary = soup.new_tag("details", attrs={"class": "solution"}), soup.new_tag("summary")
    summary.string = title
    element.wrap(details)
    details.insert(0, summary)
    return details


def fold_solution(soup: BeautifulSoup, cell: Tag, code: str) -> None:
    """Shows what the learner gets of an exercise cell, and folds the solution under it."""
    details = fold(soup, cell.select_one(".input"), f"Solution of {function_of(code).name}")
    shown = highlight(stub(code), PythonLexer(), HtmlFormatter())
    details.insert_before(BeautifulSoup(f'<div class="input">{shown}</div>', "html.parser"))


class Ends(HTMLParser):
    """The ends of a page's links: its own ids, and what its tags lead to, as (tag, url)."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.urls: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.add(value or "")
            elif name in ("href", "src"):
                self.urls.append((tag, value or ""))


def broken_links(out: Path) -> list[str]:
    """The links, scripts, styles and images of the book's pages that lead nowhere in it; links to the web are left."""
    pages = {path.name: Ends(path.read_text()) for path in out.glob("*.html")}
    lost = []
    for name, page in pages.items():
        for tag, url in page.urls:
            if url.startswith("data:"):  # a figure: long, and whole
                continue
            target = urlsplit(url)
            if target.scheme == "mailto" or (tag == "a" and target.scheme in ("http", "https")):
                continue
            file = unquote(target.path) or name
            here = not target.scheme and (out / file).is_file()
            ids = pages[file].ids if file in pages else ()
            if not here or (target.fragment and unquote(target.fragment) not in ids):
                lost.append(f"{name}: {url}")
    return lost


# Assets


def math_font(path: Path) -> str:
    """CSS with a font for mathematics in it: few systems have one, and a page on disk may not load a font file."""
    data = base64.b64encode(path.read_bytes()).decode()
    face = f'font-family: "STIX Two Math"; src: url("data:font/woff2;base64,{data}") format("woff2")'
    return f'@font-face {{ {face} }}\nmath {{ font-family: "STIX Two Math", math, serif }}\n'


def script_json(value: object) -> str:
    """JSON that may stand in a script file."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/") + ";\n"


def recorded(path: Path) -> list[dict]:
    """The recorded claims, none where they were not recorded yet."""
    return claims.recorded(path) if path.exists() else []


def put(text: str, path: Path) -> None:
    write_bytes(text.encode(), path, overwrite=True)


def course_book(
    out: Path,
    notebooks: Path = ROOT / "notebooks/solved",
    data: Path = ROOT / "data/mini",
    seconds: Path = timings.PATH,
) -> list[Page]:
    """The course's own book, from the solved notebooks and what was measured; needs the suite's checkpoints."""
    from dts_mini.suites.mini.suite import MiniSuite  # open_clip takes seconds to import

    results = json.loads(read_bytes(data / "results.json"))
    known = {"results": results, "paper": json.loads(read_bytes(ROOT / "data/paper.json"))}
    known |= {"timings": json.loads(seconds.read_bytes()) if seconds.exists() else {}}
    known |= {"claims": recorded(data / "claims.json"), "repository": launch.repository()}
    grids = sliders.grids(MiniSuite(data), results)
    found = {"docs": library.docs(ROOT / "docs"), "api": library.api()}
    return build(notebooks, out, data=known, grids=grids, texts=ROOT / "notebooks", **found)


def main() -> int:
    parser = argparse.ArgumentParser(description="Builds the static book from the solved, executed notebooks.")
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks/solved")
    parser.add_argument("--data", type=Path, default=ROOT / "data/mini", help="checkpoints and results.json")
    parser.add_argument("--timings", type=Path, default=timings.PATH, help="seconds by notebook")
    parser.add_argument("--out", type=Path, default=ROOT / "build/book")
    options = parser.parse_args()
    try:
        pages = course_book(options.out, options.notebooks, options.data, options.timings)
    except DTSError as error:
        print(f"book: {error}", file=sys.stderr)
        return 1
    print(f"{len(pages)} pages; open {options.out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
