"""Tables, and lists of facts that several methods share or differ in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from .markup import Child, el


def table(
    caption: str,
    head: Sequence[Child],
    rows: Sequence[Sequence[Child]],
    *,
    words: Sequence[int] = (),
    first: bool = False,
    marked: Sequence[int] = (),
) -> Element:
    """Return a table in a box of its own, in which it scrolls where the page is too narrow for it.

    The first cell of a row is its head. `words`: columns of text, not of figures. `first`: emphasize the first row.
    `marked`: rows that stand out.
    """
    titles = [
        el("th", title, scope="col", class_="text" if number in (0, *words) else None)
        for number, title in enumerate(head)
    ]
    body = el("tbody")
    for place, (name, *cells) in enumerate(rows):
        css = "first" if first and place == 0 else "differs" if place in marked else None
        row = el("tr", el("th", name, scope="row"), class_=css)
        for number, cell in enumerate(cells, start=1):
            row.append(el("td", cell, class_="text" if number in words else "numbers"))
        body.append(row)
    whole = el("table", el("caption", caption), el("thead", el("tr", *titles)), body)
    # A box that scrolls has to be reachable by keyboard.
    return el("div", whole, class_="wide", role="group", aria_label=caption, tabindex="0")


def facts(by_method: Mapping[str, Mapping[str, Any]], *, one: bool = False, expected: Sequence[str] = ()) -> Element:
    """Return a list of facts; where the methods differ, the values of all of them, marked.

    `one`: in one column, for long values. `expected`: facts that may differ without a mark.
    """
    names = dict.fromkeys(name for values in by_method.values() for name in values)
    entries = []
    for name in names:
        values = {method: value(given.get(name, "")) for method, given in by_method.items() if name in given}
        if len(set(values.values())) == 1 and len(values) == len(by_method):
            entries.append(el("div", el("dt", name), el("dd", next(iter(values.values())))))
        else:
            told = [el("span", el("strong", f"{method} "), text) for method, text in values.items()]
            entries.append(el("div", el("dt", name), el("dd", *told), class_=None if name in expected else "differs"))
    return el("dl", *entries, class_="facts one" if one else "facts")


def differing(by_method: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the names of the facts in which the methods differ."""
    names = dict.fromkeys(name for values in by_method.values() for name in values)
    texts = {name: [value(given[name]) if name in given else None for given in by_method.values()] for name in names}
    return [name for name, told in texts.items() if len(set(told)) > 1]


def value(given: Any) -> str:
    """Return how a value is written: as in JSON, but for texts, which stand as they are."""
    if isinstance(given, str):
        return given or "–"
    return "–" if given is None else json.dumps(given, ensure_ascii=False)
