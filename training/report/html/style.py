"""How the pages look, in one place. Light and dark, on a phone and on a wide screen, on paper."""

from __future__ import annotations

from ..look import AL, BP, LAYERS, OTHERS, Style

#: What is too dark, or too light, to be seen on the other background.
DARK = {
    "#0072B2": "#4BA3DC", "#D55E00": "#F0843C", "#009E73": "#2FBF95", "#000000": "#D5D9DE", "#CC79A7": "#DB93BA",
    "#882255": "#D0609A", "#332288": "#8A80E8", "#661100": "#C4694F",
}  # fmt: skip
LIGHT = {"#E69F00": "#B87F00", "#56B4E9": "#2E93CE", "#F0E442": "#B3A800", "#999999": "#7A7A7A"}
#: From matplotlib's viridis, whose order is that of brightness: the first layer is the darkest on paper.
VIRIDIS = ("#440154", "#46327E", "#365C8D", "#277F8E", "#1FA187", "#4AC16D", "#A0DA39", "#FDE725")
STEPS = 16


def method_class(style: Style) -> str:
    """Return the class that has the color of a method."""
    return f"c{style.color[1:].lower()}"


def layer_class(index: int, layers: int) -> str:
    """Return the class that has the color of a layer, from dark (first) to light (last)."""
    return f"r{round((STEPS - 1) * index / max(1, layers - 1))}"


def part_class(index: int) -> str:
    """Return the class that has the color of a layer in a timeline."""
    return f"c{LAYERS[index % len(LAYERS)][1:].lower()}"


def _ramp(position: float) -> str:
    """Return the color at a position from 0 to 1 of the ramp."""
    left = min(int(position * (len(VIRIDIS) - 1)), len(VIRIDIS) - 2)
    part = position * (len(VIRIDIS) - 1) - left
    pairs = [(int(VIRIDIS[left][i : i + 2], 16), int(VIRIDIS[left + 1][i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(low + part * (high - low)):02x}" for low, high in pairs)


def _palette(dark: bool) -> str:
    colors = dict.fromkeys([AL.color, BP.color, *(style.color for style in OTHERS), *LAYERS])
    swap = DARK if dark else LIGHT
    rules = [f".c{color[1:].lower()}{{--c:{swap.get(color, color)}}}" for color in colors]
    low, high = (0.32, 1.0) if dark else (0.0, 0.78)
    rules += [f".r{step}{{--c:{_ramp(low + (high - low) * step / (STEPS - 1))}}}" for step in range(STEPS)]
    return "".join(rules)


CSS = (
    f"""
:root {{
  color-scheme: light dark;
  --bg: #fff; --text: #1b1f24; --soft: #57606a; --line: #d9dee3; --tint: #f5f7f9; --mark: #fff3cd; --link: #0a5a94;
}}
{_palette(dark=False)}
@media screen and (prefers-color-scheme: dark) {{
  :root {{
    --bg: #14171a; --text: #e4e7ea; --soft: #9da7b1; --line: #333a41; --tint: #1c2024; --mark: #4a3d12; --link: #7cc0f2;
  }}
  {_palette(dark=True)}
}}
"""
    + """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 68rem; background: var(--bg); color: var(--text);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", Arial, sans-serif;
  overflow-wrap: break-word;
}
a { color: var(--link); text-underline-offset: .15em; }
h1 { margin: 0; font-size: 1.9rem; line-height: 1.2; letter-spacing: -.01em; text-wrap: balance; }
h2 { margin: 3rem 0 .75rem; padding-top: 1rem; border-top: 1px solid var(--line); font-size: 1.3rem; line-height: 1.3; }
h3 { margin: 1.75rem 0 .5rem; font-size: 1rem; }
p { margin: .75rem 0; max-width: 48rem; }
ul { margin: .75rem 0; padding-left: 1.2rem; max-width: 44rem; }
li { margin: .2rem 0; }
code { font: .875em/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code, td, th, dt, dd { overflow-wrap: anywhere; }
.under { margin: .35rem 0 0; color: var(--soft); }
.state { display: inline-block; margin: .9rem 0 0; padding: .1rem .6rem; border-radius: 1rem; background: var(--mark); }
.lead { margin-top: 1.5rem; }
.lead .main { font-size: 1.15rem; line-height: 1.5; max-width: 52rem; }
.soft, figcaption, caption, footer { color: var(--soft); font-size: .9rem; }
nav { margin: 1.25rem 0 0; font-size: .9rem; }
nav a { margin-right: 1rem; white-space: nowrap; }

.wide { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .95rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 0 0 .4rem; max-width: calc(100vw - 2rem); }
th, td { padding: .3rem 1rem .3rem 0; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th { font-weight: 600; }
tbody th { font-weight: 400; min-width: 7.5rem; }
thead th { vertical-align: bottom; border-bottom-color: var(--soft); }
thead th > span { white-space: nowrap; }
tr > :first-child, td.text, th.text { text-align: left; }
td, th { overflow-wrap: normal; }
td.text { overflow-wrap: anywhere; min-width: 7rem; }
td.numbers { white-space: nowrap; }
tr.first > * { font-weight: 600; }
.differs, tr.differs > * { background: var(--mark); }

.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1.5rem 2rem; }
figure { margin: 0; min-width: 0; break-inside: avoid; }
figure.alone { max-width: 44rem; }
figcaption { margin-top: .25rem; max-width: 44rem; }
svg { display: block; max-width: 100%; height: auto; }
svg.key { display: inline-block; width: 2.1rem; height: .8rem; margin-right: .35rem; vertical-align: -.05rem; }
svg.swatch { display: inline-block; width: .75em; height: .75em; max-width: none; margin-right: .35em; }
svg.bar { width: 10rem; height: 1rem; max-width: none; margin-top: .25rem; }
svg.long { min-width: 44rem; width: 100%; }
.legend {
  display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: .6rem 0; padding: 0; list-style: none; max-width: none;
  font-size: .9rem;
}
.legend li { margin: 0; }
.chart text { fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
.chart .name { fill: var(--text); font-size: 13px; font-weight: 600; }
.chart .label { fill: var(--text); }
.grid { stroke: var(--line); stroke-width: 1; }
.axis { stroke: var(--soft); stroke-width: 1; }
.curve { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.band { fill: var(--c); fill-opacity: .16; stroke: none; }
.level { stroke: var(--c); stroke-width: 1.5; }
.dot { fill: var(--c); stroke: var(--bg); stroke-width: .75; }
.turn { fill: var(--c); fill-opacity: .35; stroke: var(--c); stroke-width: 1.25; }
.star { fill: var(--bg); stroke: var(--c); stroke-width: 1.5; stroke-linejoin: round; }
.key .star, .plain { --c: var(--text); }
.hit { fill: transparent; }
.hit:hover { fill: var(--soft); fill-opacity: .12; }
.point:hover .dot { stroke: var(--text); stroke-width: 2; }
.box { fill: var(--c); }
.pale { fill: var(--c); fill-opacity: .5; }
.busy { fill: #0072b2; } .data { fill: #e69f00; } .copies { fill: #009e73; }
.rest { fill: var(--line); }
.idle { --c: color-mix(in srgb, var(--soft) 45%, var(--bg)); }
.starved { --c: var(--text); } .copying { --c: var(--soft); }

.facts { columns: 17rem 3; column-gap: 2.5rem; margin: .75rem 0; }
.facts.one { columns: 1; }
.facts > div {
  break-inside: avoid; display: flex; justify-content: space-between; gap: 1rem; padding: .25rem 0;
  border-bottom: 1px solid var(--line);
}
.facts.one > div { justify-content: flex-start; }
.facts.one dt { flex: 0 0 9rem; }
.facts.one dd { text-align: left; }
dt { color: var(--soft); min-width: 0; }
dd { margin: 0; text-align: right; min-width: 0; }
dd > span { display: block; }
.facts .differs { padding-left: .4rem; padding-right: .4rem; }
details { margin: .75rem 0; }
summary { cursor: pointer; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); }

@media (max-width: 40rem) {
  body { padding: 1.5rem 1rem 3rem; }
  h1 { font-size: 1.5rem; }
  h2 { margin-top: 2.25rem; }
  .facts.one > div { display: block; }
  .chart text { font-size: 15px; }
  .chart .name { font-size: 16px; }
  .chart .label { font-size: 13px; }
  svg.long { min-width: 60rem; }
  .long text { font-size: 13px; }
  th, td { padding-right: .7rem; }
  tbody th { min-width: 5rem; }
}
@media print {
  :root { color-scheme: light; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  .wide { overflow: visible; }
  .figures { grid-template-columns: 1fr 1fr; gap: 1rem; }
  h2, h3, caption { break-after: avoid; }
  tr { break-inside: avoid; }
  a { color: inherit; text-decoration: none; }
}
"""
)
