"""Markdown, mathematics and code as the book's HTML."""

import html
import re

import latex2mathml.converter
from bs4 import BeautifulSoup, NavigableString, Tag
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from pygments.styles import get_style_by_name
from pygments.token import STANDARD_TYPES

from dts_mini.core.errors import DTSError


class _Markdown(IPythonRenderer):
    def block_math(self, body: str) -> str:
        return mathml(body, "block")

    def inline_math(self, body: str) -> str:
        return mathml(body, "inline")

    def latex_environment(self, name: str, body: str) -> str:
        return mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")


def markdown(text: str) -> str:
    """Markdown as HTML, mathematics as MathML."""
    return MarkdownWithMath(renderer=_Markdown(escape=False, exclude_anchor_links=True)).render(text)


class Exporter(HTMLExporter):
    """nbconvert's pages with our Markdown: formulas need no network."""

    def markdown2html(self, source: str) -> str:
        return markdown(source)


def page(notebook: NotebookNode) -> str:
    """A notebook with its outputs as one page of HTML, as Jupyter shows it."""
    return Exporter(template_name="classic").from_notebook_node(notebook)[0]


def inline(text: str) -> str:
    """One line of Markdown as HTML, without the paragraph around it."""
    return markdown(text).strip().removeprefix("<p>").removesuffix("</p>")


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


def code_lines(soup: BeautifulSoup, pre: Tag) -> None:
    """Gives each line of coloured code a span of its own, so that a long one wraps under its own indentation."""
    lines: list[list] = [[]]
    for child in list(pre.children):
        child.extract()
        if not isinstance(child, NavigableString):
            lines[-1].append(child)
            continue
        first, *rest = str(child).split("\n")
        lines[-1].append(first)
        for part in rest:
            lines[-1].append("\n")
            lines.append([part])
    for parts in lines:
        text = "".join(part if isinstance(part, str) else part.get_text() for part in parts)
        if not text:
            continue
        indent = len(text) - len(text.lstrip(" ")) if text.strip() else 0
        line = soup.new_tag("span", attrs={"class": "line-of-code", "style": f"--in:{indent + 4}ch"})
        line.extend(NavigableString(part) if isinstance(part, str) else part for part in parts if part != "")
        pre.append(line)


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
