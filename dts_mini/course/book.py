"""The book: the solved notebooks as static pages that open from disk, without a network (``make book``).

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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
from dts_mini.course import claims, kit, launch, sliders, timings
from dts_mini.course.build import function_of, is_exercise, stub
from dts_mini.course.exercises import EXERCISES
from dts_mini.course.folding import ANSWER, SUMMARIES, folded
from dts_mini.course.markup import Exporter, code_colours, code_lines, inline, markdown
from dts_mini.measures.tables import markdown as table_markdown

ROOT = Path(__file__).parents[2]
ASSETS = Path(__file__).parent / "assets"
MANY = 8  # columns of a table
GENERATOR = '<meta name="generator" content="dts_mini.course.book">'


@dataclass
class Page:
    """A page of the book: ``body`` is HTML; headings (level, id, text) and sections (id, heading, text) are its own."""

    file: str
    title: str
    body: str
    intro: str = ""
    headings: list[tuple[int, str, str]] = field(default_factory=list)
    sections: list[tuple[str, str, str]] = field(default_factory=list)


def build(notebooks: Path, out: Path, *, data: Mapping, grids: Mapping[str, Mapping], texts: Path) -> list[Page]:
    """Writes the book of the executed ``notebooks/*.ipynb`` into ``out`` and returns its pages.

    ``data``: results (``{"headline": table, "unseen": table}``), paper, timings, and where they are known the recorded
    claims (a list) and the repository (owner/name), as ``main`` reads them. ``grids``: of ``sliders.grids``. ``texts``
    holds index.md, instructor.md and glossary.md. Pages of an earlier build are removed. DTSError, naming the page, for
    a figure without alt text, mathematics that cannot be set, places of the texts that cannot be filled, and links that
    lead nowhere.
    """
    found = sorted(notebooks.glob("[0-9]*.ipynb"))
    if not found:
        raise DTSError(f"{notebooks}: there are no notebooks; build them with make notebooks")
    results, paper, measured = (data[name] for name in ("results", "paper", "timings"))
    records, where = data.get("claims", []), data.get("repository")
    chapters = [notebook_page(path, grids, records, where) for path in found]
    lessons = [kit.lesson(path, EXERCISES) for path in found]
    instructor = kit.fill((texts / "instructor.md").read_text(), lessons, EXERCISES)
    extra = [
        Page("sliders.html", "Sliders", sliders_body(grids)),
        Page("results.html", "The paper and ours", results_body(results, paper)),
        Page("claims.html", "Claims", claims_body(records, chapters)),
        Page("timings.html", "Timings", timings_body(measured, chapters)),
        Page("instructor.html", "For instructors", instructor),
        Page("glossary.html", "Glossary", glossary_body((texts / "glossary.md").read_text(), chapters)),
    ]
    index = Page("index.html", "Start", markdown((texts / "index.md").read_text()))
    index.body = index.body.replace("<p>[route]</p>", route(chapters, lessons, measured))
    index.body = index.body.replace("<p>[launch]</p>", launch_body(where))
    pages = [index, *chapters, *extra]
    for page in pages:
        finish(page, chapters)
    (out / "assets").mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.html"):
        if GENERATOR in old.read_text():
            old.unlink()
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(ASSETS), autoescape=True, trim_blocks=True)
    template = environment.get_template("page.html.j2")
    for number, page in enumerate(pages):
        before, after = (pages[number - 1] if number else None), (pages[number + 1 :] or [None])[0]
        about = {"generator": GENERATOR, "page": page, "pages": pages, "extra": extra}
        put(template.render(before=before, after=after, **about), out / page.file)
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
    for cell in notebook.cells:
        shown = soup.find(id=f"cell-id={cell.id}")
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
    return Page(f"{path.stem}.html", title, str(soup), " ".join(first.get_text().split()) if first else "")


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
    for pre in soup.select(".highlight pre"):
        code_lines(soup, pre)
    for cell in soup.select("td"):
        if estimate := re.fullmatch(r"([\d.]+) (\[[\d., -]+\])", cell.get_text()):
            cell.string, interval = estimate[1], soup.new_tag("span", attrs={"class": "interval"})
            interval.string = estimate[2]
            cell.extend([" ", interval])
    for table in soup.select("table"):
        if len(table.select("thead th")) > MANY:
            table["class"] = [*table.get("class", []), "many"]
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
    """The links, scripts, styles and images of the book's pages that lead nowhere in it; links to the web are left."""
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


def route(chapters: list[Page], lessons: Sequence[kit.Lesson], measured: Mapping) -> str:
    """The way through the course: each notebook, what you can do after it, its minutes, and how long it runs."""
    seconds = measured.get("seconds", {})
    items = []
    for page, lesson in zip(chapters, lessons, strict=True):
        time, minutes = seconds.get(page.file.removesuffix(".html")), lesson.minutes + lesson.practice
        parts = [f"{minutes} min" if minutes else "", f"runs in {time:.0f} s" if time else ""]
        took = f' <span class="took">{", ".join(filter(None, parts))}</span>'
        items.append(f'<li><a href="{page.file}">{html.escape(page.title)}</a>{took}<br>{html.escape(page.intro)}</li>')
    return f'<ol class="route">{"".join(items)}</ol>'


def launch_body(where: str | None) -> str:
    """How to open the notebooks at Binder and Colab, as far as the repository's address is known."""
    if where:
        ways = " or ".join(f'<a href="{html.escape(url)}">{name}</a>' for name, url in launch.links(where).items())
        text = f"<p>Open the course at {ways}; every chapter links to its own notebook there."
    else:
        text = (
            "<p>Binder and Colab open a public repository by its address. This copy does not know its own: it stands "
            "in <code>CITATION.cff</code> as <code>repository-code</code> once there is one, and then each chapter "
            "links there."
        )
    code = highlight(launch.colab_cell(where), PythonLexer(), HtmlFormatter())
    return (
        f"{text} Binder installs what <code>.binder/</code> names. Colab brings only the notebook, so give it a first "
        "cell "
        f"that fetches the rest:</p>{code}"
    )


def sliders_body(grids: Mapping[str, Mapping]) -> str:
    """All sliders on one page."""
    intro = (
        "<h1>Sliders</h1><p>Move a slider with the mouse or the arrow keys. Every value was computed beforehand by the "
        "code of the course; the same sliders run in Jupyter: <code>dts_mini.course.sliders.widget(name)</code>.</p>"
    )
    return intro + "".join(f"<h2>{name.capitalize()}</h2>{sliders.figure_html(name, g)}" for name, g in grids.items())


def results_body(results: Mapping, paper: Mapping) -> str:
    """The paper's numbers beside ours, why they differ, and our two tables whole."""
    columns = ("the paper, real suite", "ours, mini suite", "why they differ")
    rows = "".join(
        f"<tr><th scope=row>{html.escape(row['what'])}</th>"
        f'<td data-label="{columns[0]}">{html.escape(row["paper"])}<br>'
        f'<span class="source">{html.escape(row["source"])}</span></td>'
        f'<td data-label="{columns[1]}">{html.escape(ours(results, row["ours"]))}</td>'
        f'<td data-label="{columns[2]}">{html.escape(row["why"])}</td></tr>'
        for row in paper["rows"]
    )
    heads = "".join(f"<th scope=col>{column}</th>" for column in ("", *columns))
    parts = [
        markdown("# The paper and ours\n\n" + paper["about"]),
        f'<table class="paper cards"><caption>The paper\'s numbers beside ours</caption><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table>",
    ]
    for table in (results["headline"], results["unseen"]):
        about = f"Accuracy in % on {table['split']} images of the {table['suite']} suite; brackets: 95 % intervals."
        if any("storage" in row for row in table["rows"]):
            about += (
                " *Storage* is what each task adds to the one shared model: its file's bytes, as a share of an expert."
            )
        shown = markdown(table_markdown(table)).replace("<table>", f"<table><caption>{inline(about)}</caption>")
        parts += [markdown(f"## Ours: {table['title']}"), shown, markdown(provenance(table))]
    return "".join(parts)


def claims_body(records: Sequence[Mapping], chapters: list[Page]) -> str:
    """Every claim of the course: its sentence, what was measured, what it allows, and a link to where it is made."""
    about = (
        "# Claims\n\nA [claim](glossary.md#Claim) is a sentence of the course that a machine checks: wherever a "
        "notebook runs, it compares a number measured there with bounds, and stops where the number lies outside. Here "
        "they all stand, with what was measured when the stored outputs were made. Brackets are 95 % intervals; where "
        "a claim has one, all of it "
        "has to lie within the bounds."
    )
    parts = [markdown(about)]
    if not records:
        parts.append(
            "<p>None is recorded yet: <code>make notebooks</code> writes <code>data/mini/claims.json</code>.</p>"
        )
    for page in chapters:
        own = [record for record in records if record["notebook"] == page.file.removesuffix(".html")]
        places = {
            tag["id"].removeprefix("claim-"): tag
            for tag in BeautifulSoup(page.body, "html.parser").select(".claim[id]")
        }

        def link(name: str, page: Page = page, places: Mapping[str, Tag] = places) -> str:
            if name not in places:
                return f'<a href="{page.file}">{page.file[:2]}</a>'
            step = places[name].find_previous("h2")
            text = readable(step).partition(" · ")[0] if step else page.file[:2]
            return f'<a href="{page.file}#claim-{name}">{html.escape(text)}</a>'

        rows = "".join(
            f"<tr><th scope=row>{html.escape(record['sentence'])} {link(record['name'])}</th>"
            f'<td data-label="measured">{html.escape(claims.reads(record))}</td>'
            f'<td data-label="has to be">{html.escape(claims.bounds(record))}</td></tr>'
            for record in own
        )
        if own:
            heads = "".join(f"<th scope=col>{head}</th>" for head in ("claim", "measured", "has to be"))
            parts.append(
                f'<h2>{html.escape(page.title)}</h2><table class="cards">'
                f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
            )
    return "".join(parts)


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
    body = markdown(head + "\n".join(["| notebook | seconds |", "|---|---:|", *lines, total, "", provenance(measured)]))
    return body.replace("<table>", "<table><caption>Seconds, by notebook</caption>")


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
        data |= {"claims": recorded(options.data / "claims.json"), "repository": launch.repository()}
        grids = sliders.grids(MiniSuite(options.data), results)
        pages = build(options.notebooks, options.out, data=data, grids=grids, texts=ROOT / "notebooks")
    except DTSError as error:
        print(f"book: {error}", file=sys.stderr)
        return 1
    print(f"{len(pages)} pages; open {options.out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
