"""The pages in a browser, on a wide screen and on a phone: whole, legible, and without a request to anybody."""

from __future__ import annotations

import html
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from training.report.__main__ import main

from .made import NASTY, TIMELINE, USE, make

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
#: Where this is set, as in .ci/run, a missing browser is a failure.
REQUIRED = "REPORT_NEEDS_BROWSER"
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--v=0", "--dump-dom"),
    *("--virtual-time-budget=8000", "--window-size=1400,900"),
)
WIDTHS = (1280, 400)
#: Frames have the width that they are given, whereas a window has a least one. A page's own policy holds in its frame.
PROBE = """<!doctype html><meta charset="utf-8"><body>{frames}<pre id="found"></pre><script>
addEventListener("load", () => {{
  const seen = element => {{ const box = element.getBoundingClientRect(); return box.width > 0 && box.height > 0; }};
  const found = [...document.querySelectorAll("iframe")].map(frame => {{
    const inside = frame.contentDocument, root = inside.documentElement;
    const drawn = [...inside.querySelectorAll("svg[role=img]")].filter(svg => !svg.closest("details"));
    const texts = [...inside.querySelectorAll("svg.chart text")].filter(seen);
    return {{
      width: frame.contentWindow.innerWidth,
      overflow: root.scrollWidth - root.clientWidth,
      wide: [...inside.querySelectorAll("body *")].filter(
        each => !each.closest(".wide") && each.getBoundingClientRect().right > root.clientWidth + 1).length,
      headings: [...inside.querySelectorAll("h1, h2")].map(each => seen(each) ? each.textContent : null),
      hidden: drawn.filter(svg => !seen(svg)).length,
      drawn: drawn.length,
      smallest: Math.min(...texts.map(text => text.getBoundingClientRect().height), 100),
      requests: frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name),
      scripts: inside.querySelectorAll("script").length,
    }};
  }});
  document.getElementById("found").textContent = JSON.stringify(found);
}});
</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None and os.environ.get(REQUIRED):
        pytest.fail(f"there is no browser ({', '.join(NAMES)}), and {REQUIRED} is set")
    if found is None:
        pytest.skip(f"there is no browser ({', '.join(NAMES)})")
    return found


def look(browser: str, page: Path, folder: Path) -> list[dict[str, Any]]:
    """Return what the browser shows of a page at each width; it may complain about nothing."""
    text = html.escape(page.read_text(encoding="utf-8"))
    frames = "".join(f'<iframe style="width:{w}px;height:900px;border:0" srcdoc="{text}"></iframe>' for w in WIDTHS)
    probe = folder / "probe.html"
    probe.write_text(PROBE.format(frames=frames), encoding="utf-8")
    done = subprocess.run(
        [browser, *OPTIONS, f"--user-data-dir={folder / 'profile'}", probe.as_uri()],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    start = done.stdout.index('<pre id="found">') + len('<pre id="found">')
    found: list[dict[str, Any]] = json.loads(html.unescape(done.stdout[start : done.stdout.index("</pre>", start)]))
    return found


@pytest.mark.parametrize("page", ["digits_vgg", "long", "index", "comparison"])
def test_a_page_is_whole_on_a_wide_screen_and_on_a_phone(page: str, browser: str, tmp_path: Path) -> None:
    out, name = tmp_path / "out", "a_data_set_with_a_rather_long_name"
    out.mkdir()
    make(
        out,
        "al",
        turns=3,
        use=USE,
        timeline=TIMELINE,
        layers=20,
        config={"a_path": "/a" * 60, "text": NASTY, "k" * 200: "v" * 200},
    )
    make(out, "bp", turns=3)
    for method in ("al", "bp", "a_method_from_a_plug_in", "and_another_one"):
        make(out, method, dataset=name, model="transformer", turns=2, notes=[NASTY, "x" * 300])
    assert main([str(out), "--out", str(out / "comparison.html")]) == 0
    file = out / f"{f'{name}_transformer' if page == 'long' else page}.html"
    for width, found in zip(WIDTHS, look(browser, file, tmp_path), strict=True):
        assert found["width"] == width
        assert found["overflow"] <= 0
        assert found["wide"] == 0
        assert found["headings"]
        assert None not in found["headings"]
        assert found["hidden"] == 0
        assert found["drawn"] >= (0 if page == "index" else 5)
        assert found["smallest"] >= 9
        assert found["requests"] == []
        assert found["scripts"] == 0


@pytest.mark.parametrize(
    "harm",
    [
        "<script>document.body.remove()</script>",
        "<img src='http://127.0.0.1:9/x.png'>",
        "<iframe src='x.html'></iframe>",
    ],
)
def test_whatever_gets_into_a_page_is_not_run_and_loads_nothing(harm: str, browser: str, tmp_path: Path) -> None:
    make(tmp_path, "al")
    assert main([str(tmp_path)]) == 0
    page = tmp_path / "digits_vgg.html"
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{harm}</body>"), encoding="utf-8")
    with pytest.raises(AssertionError, match="Content Security Policy"):
        look(browser, page, tmp_path)


def test_what_is_too_wide_is_found(browser: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<h1>x</h1><div style='width:3000px'>x</div>")
    for found in look(browser, page, tmp_path):
        assert found["overflow"] > 0
        assert found["wide"] > 0
