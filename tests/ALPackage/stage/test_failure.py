"""The channels of a pipeline, and which of several failures counts."""

from __future__ import annotations

import pytest

from ALPackage import StageError
from ALPackage.stage.channel import Channel, Closed, LocalChannel
from ALPackage.stage.board import Item
from ALPackage.stage.failure import FirstFailure


def test_a_pipeline_has_a_channel_into_every_stage_and_one_back() -> None:
    links = PipelineLinks(3, depth=1)
    assert len(links.channels) == 4
    assert links.channels[0].offer(None)
    assert not links.channels[0].offer(None)
    assert all(links.channels[-1].offer(None) for _ in range(100)), "the last stage would wait for the caller"
    links.close()
    for channel in links.channels:
        with pytest.raises(Closed):
            channel.get()


def test_a_local_channel_keeps_the_contract() -> None:
    """Whatever else implements it, such as a connection to another process, is interchangeable for a worker."""
    channel: Channel[Item] = LocalChannel(2)
    names = {name for name, value in vars(Channel).items() if callable(value) and not name.startswith("_")}
    assert names == {"put", "get", "offer", "ready", "close"}
    assert names <= {name for name in dir(channel) if not name.startswith("_")}


def test_the_first_failure_counts_and_every_one_stops_the_pipeline() -> None:
    stops: list[str] = []
    failure = FirstFailure(lambda: stops.append("stop"))
    assert failure.pop() is None
    first, second = StageError("a", 1, KeyError()), StageError("b", 2, KeyError())
    failure.report(first)
    failure.report(second)
    assert stops == ["stop", "stop"]
    assert failure.pop() is first
    assert failure.pop() is None, "it is forgotten, because its traceback holds tensors"
