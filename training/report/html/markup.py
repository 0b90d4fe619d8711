"""Elements of a page. `ElementTree` escapes every text and closes every element, whatever a name or a path holds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.etree.ElementTree import Element, tostring

from .style import CSS

#: Marks a page as ours, so that no other page is ever replaced.
GENERATOR = "associated-learning report"
#: Whatever is in the page: a browser loads nothing for it, and runs no script.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

Child = Element | str | None


def el(tag: str, *children: Child, **attributes: str | float | None) -> Element:
    """Return an element; None is left out, and `aria_label` or `class_` stand for `aria-label` and `class`."""
    made = Element(tag)
    for name, value in attributes.items():
        if value is not None:
            text = f"{value:g}" if isinstance(value, float) else str(value)
            made.set(name.rstrip("_").replace("_", "-"), printable(text))
    return add(made, *children)


def add(parent: Element, *children: Child) -> Element:
    """Append children to an element, and return it."""
    for child in children:
        if isinstance(child, Element):
            parent.append(child)
        elif child and len(parent):
            parent[-1].tail = (parent[-1].tail or "") + printable(child)
        elif child:
            parent.text = (parent.text or "") + printable(child)
    return parent


def printable(text: str) -> str:
    """Return the text with an escape for what no page can hold: control characters, bytes that were no UTF-8."""
    whole = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", whole)


def page(title: str, body: Iterable[Child]) -> str:
    """Return a whole page."""
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=POLICY),
        el("meta", name="generator", content=GENERATOR),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        el("link", rel="icon", href="data:,"),  # or a browser asks the server for one
        el("style", CSS),
    )
    whole = el("html", head, el("body", *body), lang="en")
    return f"<!doctype html>\n{tostring(whole, encoding='unicode', method='html')}\n"
