"""The book's pages beside the notebooks: the route, sliders, the paper's numbers, claims, timings, the glossary."""

import html
import re
from collections.abc import Mapping, Sequence

from bs4 import BeautifulSoup, Tag
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from dts_mini.core.errors import DTSError
from dts_mini.course import claims, front, kit, launch, sliders
from dts_mini.course.markup import markdown
from dts_mini.course.page import Page, readable


def route(chapters: Sequence[Page], lessons: Sequence[kit.Lesson], measured: Mapping, about: str = "") -> str:
    """The way through the course: each notebook, what you can do after it, its minutes, and how long it runs.

    ``about``: "00 to 06", the first and the last chapter of a part; without it all of them.
    """
    seconds = measured.get("seconds", {})
    first, _, last = about.partition(" to ")
    items = []
    for page, lesson in zip(chapters, lessons, strict=True):
        if about and not first <= lesson.number <= last:
            continue
        time, minutes = seconds.get(page.file.removesuffix(".html")), lesson.minutes + lesson.practice
        parts = [f"{minutes} min" if minutes else "", f"runs in {time:.0f} s" if time else ""]
        took = f' <span class="took">{", ".join(filter(None, parts))}</span>'
        items.append(
            f'<li><a href="{page.file}">{html.escape(page.title)}</a>{took}<p>{html.escape(page.intro)}</p></li>'
        )
    return f'<ol class="route">{"".join(items)}</ol>'


def front_body(results: Mapping) -> str:
    """The picture of the front page, with what it shows in words."""
    said = html.escape(front.alt(results["headline"]))
    return f'<p class="front"><img src="assets/{front.PATH.name}" alt="{said}"></p>'


BESIDE = """
- [Sliders](sliders.html): move the rank, the number of groups and the keep ratio, and watch what they cost.
- [The paper and ours](paper.html): the paper's numbers, those of the mini suite, and why they differ.
- [Claims](claims.html): every sentence that a machine checks, with the number that was measured.
- [Timings](timings.html): how long each notebook runs.
- [Reference](api.html): what every public function takes, returns and refuses.

Search finds words in all of these, in other forms and spellings too. Press `/` to begin.
"""


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


def paper_body(results: Mapping, paper: Mapping) -> str:
    """The paper's numbers beside ours, and why they differ."""
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
    return (
        markdown("# The paper and ours\n\n" + paper["about"])
        + '<table class="paper cards"><caption>The paper\'s numbers beside ours</caption>'
        + f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        + "".join(markdown(f"{results[name]['title']}: {provenance(results[name])}") for name in ("headline", "unseen"))
    )


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
