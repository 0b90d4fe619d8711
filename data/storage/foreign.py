"""What lies under the name of a text file although it is none: a web page, a server's error text, an archive."""

from __future__ import annotations

import re
from http import HTTPStatus

#: So many bytes are enough to tell.
HEAD = 1024

_PAGE = re.compile(rb"<(?:!doctype\s+html|html|head)\b", re.IGNORECASE)
_XML = re.compile(rb"<\?xml\b|<Error>")
_JSON = re.compile(rb'\{\s*"(?:errors?|message|detail|status)"\s*:')
# A number and its phrase, as in "404: Not Found": `500 Days of Summer` may be a document.
_STATUS = re.compile(rb"(?:HTTP/\S+ |Error:? )?([45]\d\d)[ :,.-]+([A-Za-z '-]{2,60}?)[.!]?")
_PHRASES = {f"{status.value} {status.phrase}".casefold().encode() for status in HTTPStatus}
_MARKS = {
    b"\xff\xfe\0\0": "is UTF-32 text; save it as UTF-8",
    b"\xff\xfe": "is UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "is UTF-16 text; save it as UTF-8",
    b"\x1f\x8b": "is a gzip file, not text; unpack it",
    b"PK\x03\x04": "is a zip archive, not text; unpack it",
    b"version https://git-lfs": "is a pointer of Git LFS; run `git lfs pull`, or get the file itself",
}


def foreign(head: bytes) -> str | None:
    """Return what a file that begins with `head` (`HEAD` bytes or the whole file) is instead of text, and what to do.

    Return None for anything else, which may still be damaged.
    """
    for mark, what in _MARKS.items():
        if head.startswith(mark):
            return what
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if _PAGE.match(start):
        return "holds a web page instead of data; get the file again"
    status = _STATUS.fullmatch(start.rstrip()) if len(head) < HEAD else None
    answer = status is not None and b" ".join(status.groups()).lower() in _PHRASES
    if answer or _XML.match(start) or _JSON.match(start):
        text = " ".join(start[:60].decode("utf-8", "replace").split())
        return f"holds a server's answer ({text!r}) instead of data; get the file again"
    return None
