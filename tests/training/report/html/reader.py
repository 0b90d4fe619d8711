"""Read a page as a browser would, with Python's own parser, and check what holds for every page."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from typing import NamedTuple

VOID = {"meta", "link", "br", "hr", "img", "input"}
#: What a page may hold. Neither scripts nor anything that is loaded.
TAGS = {
    *("html", "head", "meta", "title", "link", "style", "body", "header", "main", "section", "footer", "nav", "div"),
    *("h1", "h2", "h3", "p", "span", "strong", "a", "ul", "li", "code", "details", "summary", "figure", "figcaption"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd"),
    *("svg", "g", "path", "rect", "circle", "text"),
}


class Row(NamedTuple):
    name: str
    cells: list[str]


class Reader(HTMLParser):
    """Keeps the elements of a page, and complains about what is not well formed."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[tuple[int, str]] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.tips: list[str] = []
        self.tables: dict[str, list[Row]] = {}
        self.mistakes: list[str] = []
        self._caption = ""
        self.feed(page)
        self.close()
        if self.open:
            self.mistakes.append(f"not closed: {self.open}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.elements.append((tag, given))
        if tag not in TAGS:
            self.mistakes.append(f"<{tag}>")
        self.mistakes += [
            f"{tag} {name}" for name in given if name.startswith("on") or name in ("src", "srcset", "style")
        ]
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if "href" in given:
            self.links.append(str(given["href"]))
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))
        if tag == "table":
            self._caption = ""
        if tag == "caption":
            self._caption = "\0"
        if tag == "tr":
            self.tables.setdefault(self._caption, []).append(Row("", []))
        if tag == "td":
            self.tables[self._caption][-1].cells.append("")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.mistakes.append(f"</{tag}> is not the end of what is open")

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        if "title" in self.open and "svg" in self.open:
            self.tips.append(data)
            return
        self.texts.append(data)
        if self.headings and self.open and re.fullmatch("h[1-6]", self.open[-1]):
            level, text = self.headings[-1]
            self.headings[-1] = (level, text + data)
        if "caption" in self.open:
            self._caption = data
        if "tr" in self.open:
            rows = self.tables[self._caption]
            if "td" in self.open:
                rows[-1].cells[-1] += data
            else:
                rows[-1] = Row(rows[-1].name + data, rows[-1].cells)

    @property
    def text(self) -> str:
        """Everything that a reader sees, without the tips."""
        return " ".join(" ".join(self.texts).split())

    def row(self, name: str) -> list[str]:
        """Return the cells of the row of this name, in the first table that has one."""
        return next(row.cells for rows in self.tables.values() for row in rows if row.name == name)


def check(page: str) -> Reader:
    """Check what holds for every page, and return what is on it."""
    assert len(page.encode()) < 2_000_000
    reader = Reader(page)
    assert reader.mistakes == []
    assert len(set(reader.ids)) == len(reader.ids)
    assert page.startswith('<!doctype html>\n<html lang="en">')
    # Nothing is loaded: links stay in the folder or in the page, the style imports nothing.
    for link in reader.links:
        assert link.startswith(("#", "./", "data:,")), link
        assert not link.startswith("#") or link[1:] in reader.ids
    style = page[page.index("<style>") : page.index("</style>")]
    assert not re.search(r"url\(|@import|https?:", style)
    # Headings in order, one first.
    levels = [level for level, _ in reader.headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(two <= one + 1 for one, two in itertools.pairwise(levels))
    for tag, given in reader.elements:
        if tag == "th":
            assert given.get("scope") in ("row", "col")
        if tag == "svg":
            assert given.get("aria-hidden") == "true" or (given.get("role") == "img" and given.get("aria-label"))
        if tag in ("path", "rect", "circle", "text"):
            drawn = " ".join(str(given[name]) for name in ("d", "x", "y", "cx", "cy", "width") if name in given)
            assert not re.search("nan|inf", drawn)
    return reader
