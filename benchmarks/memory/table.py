"""The tables of this benchmark, from its JSON."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.page import origin

#: Model and settings that are not the defaults, by the name in the table.
NETWORKS: dict[str, tuple[str, dict[str, int]]] = {
    "Transformer, 3 layers": ("transformer", {}),
    "Transformer, 6 layers": ("transformer", {"al_layers": 6}),
    "Transformer, 12 layers": ("transformer", {"al_layers": 12}),
    "VGG": ("vgg", {}),
    "ResNet": ("resnet", {}),
}
CONTESTANTS = {
    "bp": "BP",
    "bp-checkpoint": "BP, checkpointing",
    "al-sequential": "AL, sequential",
    "al-continuous": "AL, two workers",
}


def figure(results: dict[str, Any], network: str, contestant: str, key: str) -> float | None:
    """Return the median of a figure; None where there is none."""
    own = [
        run[key]
        for run in results["runs"]
        if (run["network"], run["contestant"]) == (network, contestant) and "failed" not in run
    ]
    return median(own) if own else None


def markdown(results: dict[str, Any]) -> str:
    """Return a table for the bytes that autograd holds, for peak memory and for the time of a step."""
    place = (
        "device" if results["settings"]["device"].startswith("cuda") else "process, over what it had before the model"
    )
    settings = results["settings"]
    return "\n".join(
        [
            *_table(results, "held by autograd at the peak, MiB (over BP's)", "held_mib", 1.0),
            "",
            *_table(results, f"peak memory of the {place}, MiB (over BP's)", "peak_mib", 1.0),
            "",
            *_table(results, "time of a step, ms (over BP's)", "step_s", 1e3),
            "",
            f"Medians of {settings['repeats']} interleaved repetitions of {settings['batches']} batches. "
            + origin(results),
        ]
    )


def summary(results: dict[str, Any]) -> str:
    """Return the short table: what autograd holds, and the time of a step, as multiples of BP's."""
    lines = [
        "| held by autograd at the peak (time of a step) | " + " | ".join(CONTESTANTS.values()) + " |",
        "|---|" + "---|" * len(CONTESTANTS),
    ]
    for network in _networks(results):
        cells = []
        for contestant in CONTESTANTS:
            held, step = (figure(results, network, contestant, key) for key in ("held_mib", "step_s"))
            of_bp = [figure(results, network, "bp", key) for key in ("held_mib", "step_s")]
            if held is None or step is None or of_bp[0] is None or of_bp[1] is None:
                cells.append("")
            elif contestant == "bp":
                cells.append(f"{held:.0f} MiB ({1e3 * step:.0f} ms)")
            else:
                cells.append(f"{held / of_bp[0]:.2f}x ({step / of_bp[1]:.2f}x)")
        lines.append(f"| {network} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _networks(results: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(run["network"] for run in results["runs"]))


def _table(results: dict[str, Any], title: str, key: str, scale: float) -> list[str]:
    lines = [f"| {title} | " + " | ".join(CONTESTANTS.values()) + " |", "|---|" + "---|" * len(CONTESTANTS)]
    for network in _networks(results):
        base = figure(results, network, "bp", key)
        cells = []
        for contestant in CONTESTANTS:
            value = figure(results, network, contestant, key)
            over = f" ({value / base:.2f})" if value is not None and base and contestant != "bp" else ""
            cells.append("cannot run" if value is None else f"{scale * value:,.0f}{over}")
        lines.append(f"| {network} | {' | '.join(cells)} |")
    return lines
