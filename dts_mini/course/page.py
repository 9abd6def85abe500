"""A page of the book, and what every page is given: ids of headings, links within the book, text to search."""

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from bs4 import BeautifulSoup, Tag

from dts_mini.course.markup import code_lines

MANY, WORDS = 8, 12  # columns of a table; letters of a cell that may wrap in a table of many columns
CHAPTERS = re.compile(r"\b([Nn]otebooks? )(\d\d)(?:( and | to )(\d\d))?")


@dataclass
class Page:
    """A page of the book: ``body`` is HTML, ``source`` the file of the repository that it was made from, if any.

    ``headings`` (level, id, text) and ``sections`` (id, heading, text) are read from it by ``finish``.
    """

    file: str
    title: str
    body: str
    intro: str = ""
    source: str = ""
    headings: list[tuple[int, str, str]] = field(default_factory=list)
    sections: list[tuple[str, str, str]] = field(default_factory=list)


FRAME = ("found", "found-count", "main", "menu", "search", "side", "theme")  # the ids of page.html.j2


def finish(page: Page, places: Mapping[str, str], repository: str | None = None) -> None:
    """Gives headings their ids and links, links to files their pages, and reads what search needs.

    Ids are Jupyter's; in docs/ they are GitHub's, by which pages there name each other's headings. ``places``: the page
    of each file of the repository that has one. A link to another file of the repository leads to it at GitHub, where
    the ``repository`` (owner/name) is known, and else is no link.
    """
    soup = BeautifulSoup(page.body, "html.parser")
    taken = set(FRAME)
    for heading in soup.select("h1, h2, h3"):
        text = " ".join(readable(heading).split())
        ident = base = heading.get("id") or " ".join(readable(heading, latex=True).split()).replace(" ", "-")
        if page.source.startswith("docs/"):
            ident = base = re.sub(r"[^\w-]", "", base.lower())
        while ident in taken:
            ident = f"{base}-{sum(t.startswith(base) for t in taken) + 1}"
        taken.add(ident)
        heading["id"] = ident
        page.headings.append((int(heading.name[1]), ident, text))
        anchor = soup.new_tag("a", attrs={"class": "anchor", "href": f"#{ident}", "aria-label": f"Link to {text}"})
        anchor.string = "#"
        if heading.name != "h1":
            heading.append(anchor)
    for link in soup.select("a[href]"):
        lead(link, page.source, places, repository)
    if page.source.startswith("docs/"):
        name_chapters(soup, places)
    for summary in soup.select("details > summary"):
        if summary.get_text() == "Answer":  # of a quiz: it stays folded in print
            summary.parent["class"] = "answer"
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
            for cell in table.select("td"):
                if len(cell.get_text()) > WORDS and not cell.select_one(".interval"):
                    cell["class"] = "words"
        if not table.find_parent(class_="scroll"):
            table.wrap(soup.new_tag("div", attrs={"class": "scroll", "tabindex": "0"}))
    page.sections = list(sections(soup))
    page.body = str(soup)


# Links


def lead(link: Tag, source: str, places: Mapping[str, str], repository: str | None) -> None:
    """Lets a link to a file of the repository lead to that file's page, or to GitHub, or be no link."""
    target = urlsplit(link["href"])
    if target.scheme or not target.path or target.path.endswith(".html"):
        return
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target.path))
    found = places.get(path) or places.get(f"notebooks/{posixpath.basename(path)}")
    if found:
        link["href"] = found + (f"#{target.fragment}" if target.fragment else "")
    elif repository:
        link["href"] = f"https://github.com/{repository}/blob/HEAD/{path}"
    elif source.startswith("docs/"):
        link.unwrap()


def name_chapters(soup: BeautifulSoup, places: Mapping[str, str]) -> None:
    """Makes a link of a chapter's number where the text says "notebook 07"."""
    chapters = {file[:2]: file for path, file in places.items() if path.endswith(".ipynb")}

    def link(number: str) -> str:
        return f'<a href="{chapters[number]}">{number}</a>' if number in chapters else number

    def links(match: re.Match) -> str:
        return match[1] + link(match[2]) + (match[3] + link(match[4]) if match[3] else "")

    for text in soup.find_all(string=CHAPTERS):
        if not text.find_parent(["a", "code", "pre", "h1", "h2", "h3"]):
            said = str(text).replace("&", "&amp;").replace("<", "&lt;")
            text.replace_with(BeautifulSoup(CHAPTERS.sub(links, said), "html.parser"))


# What search reads


def sections(soup: BeautifulSoup) -> Iterator[tuple[str, str, str]]:
    """(id, heading, text) of each section, for search; code, prose and mathematics as it reads, no figures."""
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


def readable(element: Tag, *, latex: bool = False) -> str:
    """An element's text without its own link; mathematics as it is set, or as its source (``latex``)."""
    if element.name is None:
        return str(element)
    if element.name == "math":
        return element.get("alttext", "") if latex else element.get_text().replace("\u2061", "")
    if "anchor" in element.get("class", []):
        return ""
    parts = (readable(child, latex=latex) if isinstance(child, Tag) else str(child) for child in element.children)
    return "".join(parts)
