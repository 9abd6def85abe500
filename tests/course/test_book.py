"""The book: whole, linked, offline, with alt text; its tables and sliders hold the numbers that were measured."""

import base64
import html
import importlib
import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
import torch
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from dts_mini import compress, storage
from dts_mini.core.codes import GROUPS
from dts_mini.core.errors import DTSError
from dts_mini.core.svd import decompose
from dts_mini.course import beside, book, front, library, markup, page, sliders, timings
from dts_mini.course.folding import ANSWER
from dts_mini.measures.tables import MERGES

ROOT = Path(__file__).resolve().parents[2]
PNG = base64.b64encode(
    base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==")
).decode()
PAPER = json.loads((ROOT / "data/paper.json").read_text())

FIRST = r"""# 00 · Toy: the first

After this you can *begin*.

> **Goals.** None.

Go on with [the second](02_toy.ipynb), its [second step](02_toy.ipynb#Step-2-·-Threshold), or
the [paper](https://arxiv.org/abs/2512.01461). A [term](../glossary.md#Rank).
"""
SECOND = r"""# 02 · Toy: the second

After this you can go on with $\theta_0$.

## Step 1 · Decompose

The *rank* $r = \lfloor \rho \cdot \min(m, n) \rfloor$ of `a$b` and `c$d`, in

$$\frac{\lVert M - M_r \rVert}{\lVert M \rVert} = \sqrt{1 - \frac{s_1^2}{\lVert M \rVert^2}} .$$

| a | b |
|---|---|
| 1 | $\hat M$ |
"""
THIRD = """## Step 2 · Threshold

Here lives a quokka.

<details><summary>A hint</summary>

It is *round*.
</details>

### Detail of $U$

More.

### Exercise 1 · Twice (easy, 5 minutes)

Double it.
"""
QUIZ = """## Quiz

**1.** Is $2 > 1$?

<details><summary>Answer</summary>

It *is*.
</details>
"""
EXERCISE = '''import torch


def double(x: torch.Tensor) -> torch.Tensor:
    """x (n) -> 2 x (n)."""
    return 2 * x'''


INSTRUCTOR = """# For instructors

[overview]

## A route

[route 60: 00; 02 steps 1, 2 exercise 1; 09 steps 4]

[mistakes]

[quiz]
"""
CLAIMS = [
    {"name": "02-two", "notebook": "02_toy", "sentence": "Two is at least <one>.", "value": 2.0, "unit": "", "low": 1.0},
    {
        "name": "02-share", "notebook": "02_toy", "sentence": "It is a third.", "value": 0.333, "unit": "%",
        "low": 0.3, "high": 0.4, "interval": [0.32, 0.34],
    },
]  # fmt: skip


def estimate(value: float) -> dict:
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def toy_results() -> dict:
    tasks = ["aerial", "house numbers"]

    def row(name: str, value: float, share: float) -> dict:
        cells = {"accuracy": {task: estimate(value) for task in tasks}, "mean": estimate(value)}
        kind = "merge" if name in MERGES else name if name in ("zero-shot", "experts") else "remainder"
        about = {"name": name, "kind": kind, "uses": "its expert", "kl from experts": 0.9 - value}
        return about | {**cells, "share of experts": estimate(value / 0.9), "storage": share}

    merges = [
        row(name, 0.6 + i / 100, 0.0) for i, name in enumerate(("zero-shot", "average", "Task Arithmetic", "TIES"))
    ]
    ours = [
        row(f"{method}, {ratio}", 0.8 + i / 100 + ratio / 9, ratio / 11)
        for i, method in enumerate(("DTS-T", "DTS-D, average", "DTS-D, TIES"))
        for ratio in (0.05, 0.1, 0.3)
    ]
    ours.append(row("DRC-D, average, 1 %", 0.88, 0.01))
    known = {each["name"] for each in (*merges, *ours)} | {"experts"}
    pointed = {each["ours"]["row"] for each in PAPER["rows"] if each["ours"] and each["ours"]["table"] == "headline"}
    cheap = [row(name, 0.7, 0.0) | {"kind": "cheap"} for name in sorted({"zero-shot, synonyms", *pointed} - known)]
    headline = [*merges, *cheap, *ours, row("experts", 0.9, 1.0)]
    unseen = [{"name": r["name"], "accuracy": r["accuracy"]} for r in merges]
    about = {"suite": "toy", "split": "test", "columns": tasks}
    return {
        "headline": {"title": "Personalised merging", **about, "rows": headline},
        "unseen": {"title": "Unseen tasks", **about, "rows": unseen},
    }


def toy_matrix() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.linalg.qr(torch.randn(n, 40, generator=generator)).Q for n in (60, 40))
    return u @ torch.diag(1 / torch.arange(1, 41)) @ v.T


def toy_grids() -> dict:
    matrix = toy_matrix()
    made = sliders.rank_grid(matrix), sliders.groups_grid(matrix, 4), sliders.keep_ratio_grid(toy_results()["headline"])
    return dict(zip(sliders.NAMES, made, strict=True))


def figure(**metadata) -> nbformat.NotebookNode:
    return new_output("display_data", {"image/png": PNG, "text/plain": "<Image>"}, metadata={"image/png": metadata})


def toy_notebooks(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    printed = new_output(
        "stream",
        name="stdout",
        text="one & two\nholds: Two is at least <one>. (measured 2)\nholds: A claim, not recorded. (measured 3)\n",
    )
    second = [
        new_markdown_cell(SECOND),
        new_code_cell("for x in range(2):\n    print(x)", outputs=[printed, figure(alt="A curve that <falls>.")]),
        new_markdown_cell(THIRD),
        new_code_cell(EXERCISE, metadata={"tags": ["exercise"]}),
        new_markdown_cell(QUIZ),
        new_code_cell("sliders.widget('rank')", outputs=[new_output("display_data", WIDGET)]),
    ]
    for name, cells in {"00_toy": [new_markdown_cell(FIRST)], "02_toy": second}.items():
        for number, cell in enumerate(cells):
            cell.id = f"{name[:2]}-{number:03d}"
        nbformat.write(new_notebook(cells=cells), folder / f"{name}.ipynb")
    return folder


WIDGET = {"application/vnd.jupyter.widget-view+json": {"model_id": "abc", "version_major": 2, "version_minor": 0}}
TIMINGS = {
    "seconds": {"00_toy": 12.4, "02_toy": 31.0},
    "provenance": {"made": "2026-01-02T03:04:05", "machine": "Linux", "python": "3.12", "packages": {"torch": "2.15"}},
}


DOCS = {
    "README.md": "# Documentation\n\nSee [serving](how-to/serve.md#fast-and-small-too), and the [table](table.md).\n",
    "how-to/serve.md": "# Serve\n\n## Fast, and small (too)\n\nNotebooks 00 and 02, not 07; `notebook 02`. [Back](../README.md), "
    "[code](../../toy.py).\n\n```sh\ndts-mini serve\n```\n",
    "table.md": "# Table\n\nIn notebook 02, 1 &lt; 2: $\\tau$ has a treshhold.\n\n"
    + "| method |"
    + " share of experts |" * 10
    + "\n"
    + "|---" * 11
    + "|\n"
    + "| DTS-D, average, 0.05 |"
    + " 99.9 [98.8, 100.0] |" * 10
    + "\n",
}


def toy_docs(folder: Path) -> list[page.Page]:
    for name, text in DOCS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return library.docs(folder)


def toy_book(folder: Path) -> Path:
    """A small book in ``folder/book`` with everything in it that a book may hold."""
    data = {"results": toy_results(), "paper": PAPER, "timings": TIMINGS, "claims": CLAIMS, "repository": "them/course"}
    notebooks = toy_notebooks(folder / "solved")
    (folder / "texts").mkdir(exist_ok=True)
    for name in ("index.md", "glossary.md"):
        shutil.copyfile(ROOT / "notebooks" / name, folder / "texts" / name)
    (folder / "texts/instructor.md").write_text(INSTRUCTOR)
    index = (folder / "texts/index.md").read_text()
    real = "results.md", "mini-suite.md"  # pages that the toy's docs do not have
    index = re.sub(rf"\[([^]]+)\]\(\.\./docs/({'|'.join(real)})\)", r"\1", index)
    (folder / "texts/index.md").write_text(index)
    shelf = {
        "docs": toy_docs(folder / "docs"),
        "api": library.api(map(importlib.import_module, ("dts_mini.core.errors", "dts_mini.core.compress"))),
    }
    book.build(notebooks, folder / "book", data=data, grids=toy_grids(), texts=folder / "texts", **shelf)
    return folder / "book"


def course_book(folder: Path) -> Path:
    """The real one, where its notebooks and measurements are there."""
    if not (ROOT / "data/mini/results.json").exists() or not list((ROOT / "notebooks/solved").glob("*.ipynb")):
        pytest.skip("the solved notebooks or data/mini/results.json are not there yet")
    results = json.loads((ROOT / "data/mini/results.json").read_text())
    data = {"results": results, "paper": PAPER, "timings": {}, "claims": book.recorded(ROOT / "data/mini/claims.json")}
    grids = {**toy_grids(), "keep ratio": sliders.keep_ratio_grid(results["headline"])}
    shelf = {"docs": library.docs(ROOT / "docs"), "api": library.api()}
    book.build(ROOT / "notebooks/solved", folder / "book", data=data, grids=grids, texts=ROOT / "notebooks", **shelf)
    return folder / "book"


@pytest.fixture(scope="module", params=[toy_book, course_book], ids=["toy", "course"])
def made(request, tmp_path_factory) -> tuple[Path, dict[str, BeautifulSoup]]:
    out = request.param(tmp_path_factory.mktemp("book"))
    return out, {path.name: BeautifulSoup(path.read_text(), "html.parser") for path in out.glob("*.html")}


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> tuple[Path, dict[str, BeautifulSoup]]:
    out = toy_book(tmp_path_factory.mktemp("toy"))
    return out, {path.name: BeautifulSoup(path.read_text(), "html.parser") for path in out.glob("*.html")}


def script(out: Path, name: str):
    """The data in a script file of the book."""
    text = (out / "assets" / f"{name}.js").read_text()
    return json.loads(text.split("=", 1)[1].strip().rstrip(";"))


# Whole, linked, offline


def test_no_page_loads_anything_from_elsewhere(made):
    out, pages = made
    for name, soup in pages.items():
        for tag in soup.select("[src], link[href], source, object, embed, iframe, form"):
            url = tag.get("src", tag.get("href", tag.get("data", tag.get("srcset", "elsewhere"))))
            assert re.match(r"(data:|assets/)", url), (name, url)
        for style in [*soup.select("style"), *soup.select("[style]")]:
            assert not re.search(r"url\(|@import", style.get("style") or style.get_text()), name
    for path in (out / "assets").iterdir():
        if path.suffix == ".css":
            text = path.read_text()
            assert "@import" not in text
            assert all(url.startswith("data:") for url in re.findall(r"url\([\"']?([^\"')]+)", text)), path.name
        elif path.name in ("book.js", "search.js", "sliders.js"):
            assert not re.search(
                r"\b(fetch|XMLHttpRequest|import)\b *\(?|https?://(?!www\.w3\.org/2000/svg)", path.read_text()
            )


def test_no_notebook_brings_scripts_of_its_own(made):
    for name, soup in made[1].items():
        own = [tag for tag in soup.select("main script")]
        assert not own, name


def test_every_internal_link_resolves(made):
    out, pages = made
    assert book.broken_links(out) == []
    assert sum(len(soup.select("a[href]")) for soup in pages.values()) > 50


def test_broken_links_are_found_wherever_they_are(tmp_path):
    (tmp_path / "a.html").write_text(
        '<h2 id="é b">x</h2><a href="#%C3%A9%20b">1</a><a href="a.html#no">2</a><a href="b.html">3</a>'
    )
    (tmp_path / "c.html").write_text(
        '<img src="http://x/y.png"><script src="assets/z.js"></script><a href="https://x">4</a>'
    )
    assert sorted(book.broken_links(tmp_path)) == [
        "a.html: a.html#no", "a.html: b.html", "c.html: assets/z.js", "c.html: http://x/y.png",
    ]  # fmt: skip


def test_previous_and_next_lead_through_every_page_and_back(made):
    pages = made[1]
    walked, here = ["index.html"], pages["index.html"]
    while link := here.select_one("a[rel=next]"):
        walked.append(link["href"])
        here = pages[link["href"]]
        assert here.select_one("a[rel=prev]")["href"] == walked[-2]
    assert sorted(walked) == sorted(pages)
    extra = ("sliders", "paper", "claims", "timings", "instructor", "glossary", "docs")
    first = walked.index("sliders.html")
    assert walked[first : first + 7] == [f"{name}.html" for name in extra]


def test_the_contents_name_every_page_and_mark_the_present_one(made):
    for name, soup in made[1].items():
        assert {a["href"] for a in soup.select("#side .pages > li > a")} == set(made[1])
        assert [a["href"] for a in soup.select("[aria-current=page]")] == [name]


def test_the_frames_ids_are_kept_for_it():
    frame = (Path(page.__file__).parent / "assets/page.html.j2").read_text()
    assert set(re.findall(r'\bid="([\w-]+)"', frame)) == set(page.FRAME)


def test_a_page_has_one_title_a_language_and_ids_that_are_unique(made):
    for name, soup in made[1].items():
        assert soup.html["lang"] == "en"
        assert len(soup.select("h1")) == 1, name
        ids = [tag["id"] for tag in soup.select("[id]")]
        assert len(ids) == len(set(ids)), name


def test_links_to_notebooks_lead_to_their_pages_and_headings_keep_jupyters_ids(toy):
    links = [unquote(a["href"]) for a in toy[1]["00_toy.html"].select("main p a")]
    assert {
        "02_toy.html",
        "02_toy.html#Step-2-·-Threshold",
        "glossary.html#Rank",
        "https://arxiv.org/abs/2512.01461",
    } <= set(links)


# What is on a page


def test_every_figure_keeps_its_alt_text(toy):
    (image,) = toy[1]["02_toy.html"].select(".output img")
    assert image["alt"] == "A curve that <falls>."


def test_the_book_holds_as_many_described_figures_as_the_notebooks(made):
    out, pages = made
    folder = out.parent / "solved" if (out.parent / "solved").exists() else ROOT / "notebooks/solved"
    for path in folder.glob("*.ipynb"):
        cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        outputs = [o for cell in cells for o in cell.outputs if "image/png" in o.get("data", {})]
        wanted = [o.metadata["image/png"]["alt"] for o in outputs]
        assert [image["alt"] for image in pages[f"{path.stem}.html"].select(".output img")] == wanted


def test_a_figure_without_alt_text_is_refused_by_notebook_and_cell(tmp_path):
    cell = new_code_cell("show()", outputs=[figure()], id="01-007")
    nbformat.write(new_notebook(cells=[new_markdown_cell("# A"), cell]), tmp_path / "01_bare.ipynb")
    with pytest.raises(DTSError, match=r"01_bare\.ipynb, cell 01-007: a figure has no alt text"):
        book.notebook_page(tmp_path / "01_bare.ipynb", {})


def test_mathematics_becomes_mathml_and_code_keeps_its_dollars(toy):
    page = toy[1]["02_toy.html"]
    assert "a$b" in [code.get_text() for code in page.select("main p code")]
    assert not any("$" in text for text in page.main.find_all(string=True) if text.parent.name != "code")
    assert page.select_one('math[display="block"] mfrac msqrt, math[display="block"] msqrt mfrac')
    assert page.select_one("table math mover")
    assert page.math["alttext"] == r"\theta_0"


def test_a_notebook_as_one_page_sets_its_formulas_without_a_network():
    text = "Let $x_1$ be\n\n$$x_1 \\le \\lVert A \\rVert$$"
    body = BeautifulSoup(markup.page(new_notebook(cells=[new_markdown_cell(text)])), "html.parser")
    cell = body.select_one(".text_cell_render")
    assert [formula["display"] for formula in cell.select("math")] == ["inline", "block"]
    assert "$" not in cell.get_text() and "lVert" not in cell.get_text()


@pytest.mark.parametrize("latex", [r"\notacommand x", r"\frac{1", r"\left( x"])
def test_a_formula_that_cannot_be_set_is_refused(latex):
    with pytest.raises(DTSError, match="formula"):
        markup.mathml(latex, "inline")


def test_every_formula_of_the_sources_can_be_set():
    count = 0
    for path in [*(ROOT / "notebooks/source").glob("*.py"), *(ROOT / "notebooks").glob("*.md")]:
        text = path.read_text() if path.suffix == ".md" else "\n".join(
            line.removeprefix("#").removeprefix(" ") for line in path.read_text().splitlines() if line.startswith("#")
        )  # fmt: skip
        count += markup.markdown(text).count("<math")
    assert count > 40


def test_a_solution_is_folded_under_what_the_learner_gets(toy):
    details = toy[1]["02_toy.html"].select_one("details.solution")
    assert details.summary.get_text() == "Solution of double"
    assert "return 2 * x" in details.get_text() and not details.has_attr("open")
    given = details.find_previous_sibling(class_="input").get_text()
    assert "NotImplementedError" in given and "def double(x: torch.Tensor)" in given and "return 2" not in given


def test_plumbing_is_folded_and_what_comes_out_of_it_stays(tmp_path):
    said = lambda text: [new_output("stream", name="stdout", text=text)]
    cells = [
        new_markdown_cell("# A"),
        new_code_cell("import torch"),
        new_code_cell("x = 1\nclaim('01-a', 'A.', x)", outputs=said("holds: A. (measured 1)\n")),
        new_code_cell("show(figures.rank(M))", outputs=[figure(alt="A curve.")]),
        new_code_cell("print(7)", outputs=said("7\n")),
        new_code_cell("print(8)", outputs=said("8\n"), metadata={"tags": ["answer"]}),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "01_a.ipynb")
    page = BeautifulSoup(book.notebook_page(tmp_path / "01_a.ipynb", {}).body, "html.parser")
    folds = {details.summary.get_text(): details for details in page.select("details")}
    assert list(folds) == ["The set-up", "The code of these checks", "The code of this figure", ANSWER]
    assert [bool(fold.select_one(".output_wrapper")) for fold in folds.values()] == [False, False, False, True]
    assert len(page.select(".output_wrapper")) == 4 and "8" in folds[ANSWER].get_text()


def test_hints_stay_folded_and_their_markdown_is_read(toy):
    hint = toy[1]["02_toy.html"].find("summary", string="A hint").parent
    assert not hint.has_attr("open") and hint.em.get_text() == "round"


def test_outputs_are_escaped_and_widgets_become_static_sliders(toy):
    page = toy[1]["02_toy.html"]
    printed = "one & two\nholds: Two is at least <one>. measured 2\nholds: A claim, not recorded. measured 3"
    assert page.select_one(".output_stdout").get_text().strip() == printed
    assert page.select_one(".output figure.slider")["data-grid"] == "rank"
    assert [tag["src"] for tag in page.select("script[src]")][-2:] == ["assets/grids.js", "assets/sliders.js"]


def test_a_claim_has_what_was_measured_beside_it_and_a_page_lists_all(toy):
    page, rows = toy[1]["02_toy.html"], rows_of(toy[1]["claims.html"].table)
    assert page.find(id="claim-02-two").select_one(".measured").get_text() == "measured 2"
    assert rows == [
        ["claim", "measured", "has to be"],
        ["Two is at least <one>. Step 1", "2", "at least 1"],
        ["It is a third. 02", "33.3 % [32.0, 34.0]", "between 30 and 40 %"],
    ]
    links = [a["href"] for a in toy[1]["claims.html"].select("tbody a")]
    assert links == ["02_toy.html#claim-02-two", "02_toy.html"]  # the second one is recorded, but printed nowhere


def test_without_recorded_claims_the_book_says_so(tmp_path):
    assert book.recorded(tmp_path / "claims.json") == []
    assert "None is recorded yet" in beside.claims_body([], [])


def test_every_recorded_claim_stands_on_its_page(made):
    links = [a["href"] for a in made[1]["claims.html"].select("tbody a")]
    for file, _, ident in (link.partition("#") for link in links):
        assert not ident or made[1][file].find(id=ident).select_one(".measured"), ident
    assert "02_toy.html" in made[1] or all("#" in link for link in links), "claims.json and the notebooks differ"


def test_a_notebook_links_to_binder_and_colab_where_the_address_is_known(toy):
    links = {a.get_text(): a["href"] for a in toy[1]["02_toy.html"].select(".launch a")}
    assert links["Binder"] == "https://mybinder.org/v2/gh/them/course/HEAD?urlpath=lab/tree/notebooks/02_toy.ipynb"
    assert links["Colab"] == "https://colab.research.google.com/github/them/course/blob/main/notebooks/02_toy.ipynb"
    assert "git clone -q --depth 1 https://github.com/them/course" in toy[1]["index.html"].get_text()


def test_without_an_address_nothing_links_to_binder_and_the_start_page_says_why(tmp_path):
    page = book.notebook_page(toy_notebooks(tmp_path) / "02_toy.ipynb", toy_grids())
    assert "mybinder" not in page.body and "mybinder" not in beside.launch_body(None)
    assert "repository-code" in beside.launch_body(None)


def test_lines_of_code_wrap_under_their_own_indentation_and_stay_the_same_text(toy):
    pre = toy[1]["02_toy.html"].select_one(".highlight pre")
    assert pre.get_text().strip() == "for x in range(2):\n    print(x)"
    assert [line["style"] for line in pre.select(".line-of-code")] == ["--in:4ch", "--in:8ch"]


def test_every_table_of_the_pages_beside_the_notebooks_has_a_caption_or_a_heading(made):
    for name in ("sliders", "paper", "timings", "instructor"):
        for table in made[1][f"{name}.html"].select("table"):
            assert table.caption or table.find_previous(["summary", "h2", "h3", "p"]), name
    for name in ("sliders", "paper", "timings"):
        assert all(table.caption for table in made[1][f"{name}.html"].select("table"))


@pytest.mark.parametrize("make", [toy_book, course_book])
def test_a_book_built_twice_is_the_same_byte_by_byte(make, tmp_path):
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    assert [name for name in names if (first / name).read_bytes() != (second / name).read_bytes()] == []


def test_pages_of_an_earlier_build_go_and_other_files_stay(tmp_path):
    out = toy_book(tmp_path)
    (out / "01_gone.html").write_text((out / "02_toy.html").read_text())
    (out / "mine.html").write_text("<p>mine</p>")
    toy_book(tmp_path)
    assert not (out / "01_gone.html").exists() and (out / "mine.html").exists()


def test_a_slider_that_there_is_not_is_refused_by_notebook_and_cell(tmp_path):
    cell = new_code_cell("sliders.widget('speed')", id="01-003")
    nbformat.write(new_notebook(cells=[new_markdown_cell("# A"), cell]), tmp_path / "01_a.ipynb")
    with pytest.raises(DTSError, match=r"01_a\.ipynb, cell 01-003: there is no slider 'speed': choose rank"):
        book.notebook_page(tmp_path / "01_a.ipynb", toy_grids())


def test_code_is_coloured_in_both_themes(toy):
    out, pages = toy
    css = (out / "assets/book.css").read_text()
    assert re.search(r"\.highlight \.k\{color:light-dark\(", css)
    assert pages["02_toy.html"].select_one(".highlight .k")


# Search, glossary, tables


def test_the_search_index_holds_every_heading(made):
    out, pages = made
    found = {(file, ident): heading for file, _, ident, heading, _ in script(out, "entries")}
    for name, soup in pages.items():
        for heading in soup.select("main :is(h1, h2, h3)"):
            assert (name, heading["id"]) in found
    assert all(heading.strip() for heading in found.values())


def test_the_search_index_holds_prose_code_and_outputs_once(toy):
    entries = {(file, ident): text for file, _, ident, _, text in script(toy[0], "entries")}
    text = entries["02_toy.html", "Step-2-·-Threshold"]
    assert text.count("quokka") == 1 and text.count("It is round.") == 1
    assert "for x in range(2)" in entries["02_toy.html", "Step-1-·-Decompose"]
    headings = [heading for *_, heading, _ in script(toy[0], "entries")]
    assert "Detail of U" in headings


def glossary() -> dict[str, str]:
    parts = re.split(r"^## (.+)$", (ROOT / "notebooks/glossary.md").read_text(), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], (" ".join(part.split()) for part in parts[1::2]), strict=True))


def test_the_glossary_has_one_short_entry_a_term_in_order(made):
    terms = glossary()
    assert sorted(terms, key=str.lower) == list(terms) and len({term.lower() for term in terms}) == len(terms)
    for term, text in terms.items():
        assert re.search(r" First used: \d\d\.$", text) and 30 < len(text) < 320, term
    assert [h.get_text().removesuffix("#") for h in made[1]["glossary.html"].select("main h2")] == list(terms)


def test_the_glossary_holds_the_words_of_the_project():
    words = {"task vector", "difference vector", "keep ratio", "rank", "singular value", "code", "scale", "group"}
    words |= {"base merge", "expert", "head", "task descriptor", "storage", "zero-shot", "claim", "unseen task"}
    assert words <= {term.lower() for term in glossary()}


def test_a_word_of_each_term_stands_in_the_chapter_of_its_first_use():
    sources = {path.name[:2]: path.read_text().lower() for path in (ROOT / "notebooks/source").glob("*.py")}
    for term, text in glossary().items():
        chapter = re.search(r"First used: (\d\d)\.$", text)[1]
        if chapter in sources:
            words = [word.removesuffix("e") for word in re.findall(r"\w+", term.lower())]
            assert any(word in sources[chapter] for word in words), f"{term} is not in {chapter}"


def test_the_glossary_links_to_the_notebook_of_first_use(toy):
    rank = toy[1]["glossary.html"].find(id="Rank").find_next("p")
    assert rank.a["href"] == "02_toy.html"


def rows_of(table) -> list[list[str]]:
    return [[" ".join(cell.get_text(" ").split()) for cell in row.select("td, th")] for row in table.select("tr")]


def test_the_papers_table_holds_its_file_and_reads_ours_from_the_results(toy):
    table = rows_of(toy[1]["paper.html"].select_one("table.paper"))[1:]
    assert len(table) == len(PAPER["rows"])
    for (what, paper, ours, why), row in zip(table, PAPER["rows"], strict=True):
        assert (what, why) == (row["what"], row["why"])
        assert paper == f"{row['paper']} {row['source']}"
        assert ours == beside.ours(toy_results(), row["ours"])
    shown = {what: ours for what, _, ours, _ in table}
    assert shown["individual experts, mean accuracy over eight tasks"] == "90.0 [89.0, 91.0]"
    assert shown["the same, storage for each task"] == f"{30 / 11:.2f} %"
    assert shown["unseen tasks under TIES"] == "aerial 63.0 [62.0, 64.0]; house numbers 63.0 [62.0, 64.0]"


def test_every_number_of_the_paper_has_a_source_and_a_reason():
    for row in PAPER["rows"]:
        assert re.search(r"\d", row["paper"]) and len(row["why"]) > 10
        assert re.search(r"arXiv \d{4}\.\d{5}|task_vectors|quotient of two rows", row["source"]), row["what"]
    paper = {row["what"]: row["paper"] for row in PAPER["rows"]}
    dts = float(paper["DTS-D over TIES, keep ratio 0.3"].split()[0])
    experts = float(re.search(r"[\d.]+", paper["individual experts, mean accuracy over eight tasks"])[0])
    assert paper["the same, as a share of the experts"] == f"{100 * dts / experts:.1f} %"


def test_a_row_of_the_paper_that_points_nowhere_is_refused():
    with pytest.raises(DTSError, match="points to 'no such row'"):
        beside.ours(toy_results(), {"table": "headline", "row": "no such row", "entry": "mean"})


def test_the_timings_are_those_of_the_file_with_their_provenance(toy):
    page = toy[1]["timings.html"]
    assert [row[1] for row in rows_of(page.table)[1:]] == ["12", "31", "43"]
    assert "Measured 2026-01-02 on Linux, Python 3.12, torch 2.15." in page.main.get_text()


def test_recorded_timings_are_what_the_book_reads(tmp_path):
    timings.record({"00_a": 12.345}, tmp_path / "timings.json")
    entry = json.loads((tmp_path / "timings.json").read_text())
    assert entry["seconds"] == {"00_a": 12.3}
    body = beside.timings_body(entry, [page.Page("00_a.html", "A", "")])
    assert "<td>12</td>" in body.replace(' style="text-align:right"', "") and entry["provenance"]["python"] in body


def test_timings_that_are_missing_are_called_so():
    body = beside.timings_body({}, [page.Page("00_a.html", "A", "")])
    assert "not measured" in body and "Not measured yet." in body


def test_the_route_names_each_notebook_with_what_it_teaches(toy):
    parts = toy[1]["index.html"].select(".route")
    assert [len(part.select("li")) for part in parts] == [2, 0], "chapters 00 to 06, and from 07 on"
    items = toy[1]["index.html"].select(".route li")
    assert [item.a["href"] for item in items] == ["00_toy.html", "02_toy.html"]
    assert "After this you can begin." in items[0].get_text() and "runs in 12 s" in items[0].get_text()


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DTSError, match="no notebooks"):
        book.build(tmp_path, tmp_path / "out", data={}, grids={}, texts=ROOT / "notebooks")


# Documentation and reference


def test_the_docs_are_pages_of_the_book_in_the_order_of_their_links(toy):
    side = [a["href"] for a in toy[1]["docs.html"].select("#side .pages > li > a")]
    at = side.index("docs.html")
    assert side[at:] == [
        "docs.html",
        "how-to-serve.html",
        "table.html",
        "api.html",
        "api-core-errors.html",
        "api-core-compress.html",
    ]
    links = [a["href"] for a in toy[1]["docs.html"].select("main p a")]
    assert links == ["how-to-serve.html#fast-and-small-too", "table.html"]


def test_docs_link_to_the_chapters_that_they_name_and_to_the_repositorys_files(toy):
    links = {a.get_text(): a["href"] for a in toy[1]["how-to-serve.html"].select("main p a")}
    assert links == {
        "00": "00_toy.html", "02": "02_toy.html", "Back": "docs.html",
        "code": "https://github.com/them/course/blob/HEAD/toy.py",
    }  # fmt: skip
    assert "In notebook 02, 1 < 2: τ" in toy[1]["table.html"].main.get_text()


def test_without_an_address_a_file_of_the_repository_is_no_link(tmp_path):
    found = toy_docs(tmp_path)[1]
    page.finish(found, {"docs/README.md": "docs.html"})
    assert [a["href"] for a in BeautifulSoup(found.body, "html.parser").select("p a")] == ["docs.html"]
    assert "code" in found.body


def test_a_page_of_docs_that_nothing_links_to_is_refused(tmp_path):
    toy_docs(tmp_path)
    (tmp_path / "lost.md").write_text("# Lost\n")
    with pytest.raises(DTSError, match=r"no link leads to lost\.md"):
        library.docs(tmp_path)


def test_a_formula_of_the_docs_that_cannot_be_set_is_refused_by_page(tmp_path):
    (tmp_path / "README.md").write_text("# A\n\n$\\notacommand x$\n")
    with pytest.raises(DTSError, match=r"docs/README\.md: the formula"):
        library.docs(tmp_path)


def test_the_reference_is_in_the_book_with_signatures_examples_and_a_list_of_names(toy):
    page_of = toy[1]["api-core-compress.html"]
    assert page_of.h1.get_text() == "dts_mini.core.compress"
    assert page_of.find(id="compress").find_next("pre").get_text().startswith("compress(\n    base: Mapping")
    assert page_of.select_one(".highlight .gp")
    assert toy[1]["api.html"].find("a", href="api-core-compress.html#compress").get_text() == "compress"


def test_the_reference_lists_every_public_name_of_the_package_with_its_page(made):
    if "02_toy.html" in made[1]:
        return  # its reference has two modules
    names = [a.get_text() for a in made[1]["api.html"].select("table.names tbody th a")]
    import dts_mini

    for name in dts_mini.__all__:
        assert name in names, name


def test_docs_and_reference_are_folded_in_the_contents_but_where_one_reads_them(toy):
    state = lambda name: [d.has_attr("open") for d in toy[1][name].select("#side details")]
    assert state("index.html") == [False, False]
    assert state("table.html") == [True, False] and state("api.html") == [False, True]


def test_the_answers_of_a_quiz_are_told_from_other_folded_text(toy):
    marked = [details.summary.get_text() for details in toy[1]["02_toy.html"].select("details.answer")]
    assert marked == ["Answer"]


def test_the_start_page_shows_the_result_before_the_method(toy):
    image = toy[1]["index.html"].select_one("main img")
    assert (toy[0] / image["src"]).read_text() == front.picture(toy_results()["headline"])
    assert image["alt"] == front.alt(toy_results()["headline"])
    assert image.find_previous("h2") is None


# Sliders


def test_the_pages_hold_the_grids_exactly(toy):
    assert script(toy[0], "grids") == json.loads(json.dumps(toy_grids()))
    for name, grid in toy_grids().items():
        shown = toy[1]["sliders.html"].select_one(f'figure[data-grid="{name}"]')
        cells = [[float(td.get_text()) for td in row.select("td")] for row in shown.select("tbody tr")]
        values = [values for panel in grid["panels"] for values in panel["series"].values()]
        for got, wanted in zip(zip(*cells, strict=True), values, strict=True):
            assert got == pytest.approx(wanted, abs=0.051)


def test_a_slider_is_labelled_and_starts_at_a_stop(toy):
    for figure in toy[1]["sliders.html"].select("figure.slider"):
        control, label = figure.select_one("input[type=range]"), figure.label
        assert label["for"] == control["id"] and label.output["for"] == [control["id"]]
        assert 0 <= int(control["value"]) <= int(control["max"])


def test_the_grid_of_ranks_equals_the_core():
    matrix, grid = toy_matrix(), toy_grids()["rank"]
    error, energy, bits = (panel["series"] for panel in grid["panels"])
    for place, rank in enumerate(grid["slider"]["values"]):
        u, s, vh, stated = decompose(matrix, rank)
        measured = ((matrix - u @ torch.diag(s) @ vh).norm() / matrix.norm()).item()
        assert error["truncation alone"][place] == pytest.approx(stated, abs=1e-5)
        assert stated == pytest.approx(measured, abs=1e-3)
        assert energy["energy kept"][place] == pytest.approx(100 * (1 - stated**2), abs=1e-3)
        delta = compress({"w": torch.zeros_like(matrix)}, {"w": matrix}, keep_ratio=rank / min(matrix.shape))
        assert len(delta.parts["w"].s) == rank
        rebuilt = delta.remainder("w")
        assert error["truncation, four groups"][place] == pytest.approx(
            ((matrix - rebuilt).norm() / matrix.norm()).item(), abs=1e-5
        )
        assert bits["DTS"][place] == pytest.approx(100 * storage(delta).share("information"), abs=1e-4)
        picture = torch.tensor(grid["pictures"]["moving"]["values"][place]).view(sliders.CORNER, -1)
        top = matrix[: sliders.CORNER, : sliders.CORNER].abs().max()
        corner = (rebuilt[: sliders.CORNER, : sliders.CORNER] / top).clamp(-1, 1)
        assert torch.allclose(picture / 99, corner, atol=0.51 / 99 + 1e-4)
    assert grid["slider"]["at"][0] == 0 and grid["slider"]["values"][-1] <= 40


def test_the_grid_of_groups_equals_the_core_and_keeps_its_bits():
    matrix, grid = toy_matrix(), toy_grids()["groups"]
    assert grid["slider"]["values"] == list(GROUPS) == [2, 4, 8]
    error, bits = (panel["series"] for panel in grid["panels"])
    for name, ranks in zip(error, ((4, 4, 4), (8, 4, 2)), strict=True):
        for place, (groups, rank) in enumerate(zip(GROUPS, ranks, strict=True)):
            delta = compress({"w": torch.zeros_like(matrix)}, {"w": matrix}, keep_ratio=rank / 40, groups=groups)
            assert len(delta.parts["w"].s) == rank
            found = ((matrix - delta.remainder("w")).norm() / matrix.norm()).item()
            assert error[name][place] == pytest.approx(found, abs=1e-5)
            assert bits[name][place] == pytest.approx(8 * storage(delta).information / matrix.numel(), abs=1e-5)
    level = bits[list(bits)[1]]
    assert max(level) == level[1] and min(level) > 0.8 * level[1], "no more bits than four groups, and nearly as many"


def test_the_grid_of_keep_ratios_equals_the_results():
    table = toy_results()["headline"]
    grid, rows = sliders.keep_ratio_grid(table), {row["name"]: row for row in table["rows"]}
    assert grid["slider"]["values"] == [0.05, 0.1, 0.3]
    accuracy, size = grid["panels"]
    for method in ("DTS-T", "DTS-D, average", "DTS-D, TIES"):
        for place, ratio in enumerate((0.05, 0.1, 0.3)):
            row = rows[f"{method}, {ratio}"]
            assert accuracy["series"][method][place] == pytest.approx(100 * row["mean"]["value"], abs=1e-4)
            assert accuracy["bars"]["low"][method][place] == pytest.approx(100 * row["mean"]["low"], abs=1e-4)
            assert size["series"][method][place] == pytest.approx(100 * row["storage"], abs=1e-4)
    assert accuracy["level"]["value"] == pytest.approx(90)
    ends = [v for columns in accuracy["bars"].values() for values in columns.values() for v in values]
    assert accuracy["low"] <= min(ends) and max(ends) <= accuracy["high"]


def test_every_value_of_a_grid_lies_within_its_chart():
    for grid in toy_grids().values():
        for panel in grid["panels"]:
            values = [value for series in panel["series"].values() for value in series]
            assert panel["low"] <= min(values) and max(values) <= panel["high"], panel["label"]
            assert all(len(series) == len(grid["slider"]["labels"]) for series in panel["series"].values())


@pytest.mark.parametrize("name", sliders.NAMES)
def test_the_widget_shows_the_same_values_and_moves(name):
    pytest.importorskip("ipywidgets")
    grid = toy_grids()[name]
    title, slider, image, text = sliders.widget(name, grid).children
    assert [label for label, _ in slider.options] == grid["slider"]["labels"]
    before = image.value
    slider.value = len(grid["slider"]["labels"]) - 1
    assert image.value != before and image.value[:4] == b"\x89PNG"
    for panel in grid["panels"]:
        for label, series in panel["series"].items():
            assert f"{panel['label']}: {label}: <b>{series[-1]:.{panel['digits']}f}</b>" in html.unescape(text.value)
    assert grid["title"] in html.unescape(title.value)


def test_an_unknown_slider_is_refused():
    pytest.importorskip("ipywidgets")
    with pytest.raises(DTSError, match="'speed' is unknown: choose one of rank, groups, keep ratio"):
        sliders.widget("speed")
