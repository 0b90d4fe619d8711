"""The benchmark of slowed links: its cable and its table."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import pytest

from benchmarks.distributed import cable as cables
from benchmarks.distributed import links
from benchmarks.distributed.cable import Cable, NoCableError
from benchmarks.distributed.links_table import links as table
from benchmarks.distributed.links_table import shares, targets
from benchmarks.pipeline.contest import launch
from tests.benchmarks.made_up import results, verdicts

SPEEDS = {
    "al-ranks": (150.0, 120.0),
    "al-compressed": (110.0, 95.0),
    "al-bf16": (150.0, 149.0),
    "ddp": (160.0, 40.0),
    "1f1b": (100.0, 70.0),
}

AL = [{"name": "conv_1", "sent_bytes": 8_400_000}, {"name": "conv_2", "sent_bytes": 0}]


def made(**speeds: tuple[float, float]) -> dict[str, Any]:
    """Return figures of a model: by contestant, samples/s of the unlimited link and of the slow one."""
    given = {**SPEEDS, **{name.replace("_", "-"): both for name, both in speeds.items()}}
    runs = [
        {
            "repeat": repeat,
            "rate": rate,
            "contestant": name,
            "samples_per_s": both[slow] * (1 + repeat),
            "sent": {"rank0 to rank1": 2_000_000, "rank1 to rank0": 500_000},
            "on_wire": 2_600_000,
        }
        for repeat in range(3)
        for name, both in given.items()
        for slow, rate in enumerate(("unlimited", "100 Mbit/s"))
    ]
    choices = {"al-ranks": {"ranks": [0, 1, 1, 1]}, "1f1b": {"schedule": "1f1b", "cut": [3, 2], "micro": 4}}
    link = {"bytes_per_s": 12.5e6, "choices": choices}
    prepared = {"workload": {"al": AL}, "links": {"unlimited": link, "100 Mbit/s": link}}
    return results({"rates": ["unlimited", "100 Mbit/s"]}, runs, prepared=prepared)


def test_a_share_is_that_of_one_s_own_unlimited_speed() -> None:
    assert shares(made(), "al-ranks", "100 Mbit/s") == [0.8, 0.8, 0.8]
    shown = table({"vgg": made()})
    assert (
        "| **AL**, fp32 | 300.0 (150.0 - 450.0); 1 and 3 layers; 2.50 MB per batch (2.60 on the link) "
        "| 240.0 (120.0 - 360.0); **0.80**; 1 and 3 layers; 2.50 MB per batch (2.60 on the link) |"
    ) in shown
    assert "; **0.70**; 3 and 2 layers, 4 micro-batches; 2.50 MB" in shown
    assert "Mbit/s: unlimited 100, 100 Mbit/s 100. What a layer of AL hands on, MB per batch: conv_1 8.40." in shown


def test_the_target_is_the_best_of_the_others() -> None:
    what = "vgg, 100 Mbit/s: the share that AL keeps over that of the best other, BP, 1F1B"
    assert verdicts(table({"vgg": made()})) == {what: "met"}
    assert verdicts(table({"vgg": made(al_ranks=(150.0, 100.0))})) == {what: "**missed**"}
    compressed = made(al_compressed=(110.0, 130.0))
    assert verdicts(table({"vgg": compressed})) == {what.replace("AL", "AL, compressed,"): "met"}
    assert shares(compressed, "al-compressed", "100 Mbit/s") == pytest.approx([130 / 150] * 3), "of AL as it is"
    assert [one.values for one in targets({"vgg": made(ddp=(100.0, 90.0))})] == [pytest.approx([0.8 / 0.9] * 3)]


def test_without_permission_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(words: Any, **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, 1, "", "mount --make-shared /run/netns failed\nmore")

    monkeypatch.setattr(cables.shutil, "which", lambda _: "/sbin/ip")
    monkeypatch.setattr(cables.subprocess, "run", refused)
    assert links.main(["vgg", "--quick"]) == 2
    message = capsys.readouterr().err
    assert message == (
        "error: links: network namespaces are not permitted here: `ip netns add "
        f"{Cable().hosts[0]} ..`: mount --make-shared /run/netns failed\n"
    )


def test_a_cable_is_removed_and_is_as_slow_as_it_is_told() -> None:
    try:
        with Cable() as cable:
            for rate, expected in (("100mbit", "100Mbit"), (None, "noqueue")):
                cable.limit(rate)
                for host in cable.hosts:
                    shown = subprocess.run(
                        ["tc", "-n", host, "qdisc", "show", "dev", host], capture_output=True, text=True, check=True
                    )
                    assert expected in shown.stdout
    except NoCableError as error:
        pytest.skip(f"network namespaces are not permitted here: {error}")
    found = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert [host for host in cable.hosts if host in found] == []


@pytest.mark.slow
def test_processes_on_two_hosts_see_the_speed_of_the_cable() -> None:
    job = {"do": "link", "cores": sorted(os.sched_getaffinity(0))}
    try:
        with Cable() as cable:
            cable.limit("100mbit")
            found = launch([job, job], timeout=120, hosts=cable.hosts)
    except NoCableError as error:
        pytest.skip(f"network namespaces are not permitted here: {error}")
    assert found[0]["bytes_per_s"] == found[1]["bytes_per_s"]
    assert 0.7 * 12.5e6 < found[0]["bytes_per_s"] < 1.15 * 12.5e6
