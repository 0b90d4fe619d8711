"""Items as messages and back: nothing differs, unless the numbers are rounded on their way."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ALPackage import LocalLayer, Snapshot
from ALPackage.ranks.link import Kind, Message
from ALPackage.ranks.messages import as_item, as_message, result, rows_for, together
from ALPackage.ranks.wire import pack, unpack
from ALPackage.rows import overlap, share_of
from ALPackage.stage.batch import Marker, PredictBatch, TrainBatch


def through(item: Any, wire: str = "fp32") -> Any:
    """Return what the next rank makes of an item."""
    return received([as_message(item, wire, getattr(item, "inputs", None))])


def received(messages: list[Message], place: int = 0, members: int = 1) -> Any:
    """Return what a rank makes of messages that have been sent."""
    arrived = []
    for message in messages:
        packed = pack(message.content)
        arrived.append(Message(message.kind, message.number, unpack(packed.description, packed.parts)))
    return as_item(arrived, "conv_1", LocalLayer(), place, members)


@pytest.mark.parametrize("lr", [None, 0.1, {"enc": 0.1, "ae": 1e-300}])
def test_a_batch_keeps_its_number_inputs_and_learning_rate(lr: Any) -> None:
    x, y = {"tokens": torch.arange(6), "hidden": torch.randn(2, 3)}, torch.randn(2, 4)
    found = through(TrainBatch(7, x, y, lr))
    assert isinstance(found, TrainBatch)
    assert (found.number, found.lr) == (7, lr)
    assert torch.equal(found.x["tokens"], x["tokens"])
    assert torch.equal(found.x["hidden"], x["hidden"])
    assert torch.equal(found.y, y)
    assert found.guard is not None, "what a layer changes in place is noticed in every rank"


def test_a_learning_rate_that_changes_needs_no_new_description() -> None:
    x = torch.zeros(2)
    first, second = (
        pack(as_message(TrainBatch(0, x, x, {"enc": lr, "ae": lr}), inputs=(x, x)).content) for lr in (0.1, 0.2)
    )
    assert first.description == second.description


def test_inputs_to_predict_on_and_what_is_no_batch_arrive() -> None:
    x = torch.randn(3)
    found = through(PredictBatch(3, x))
    assert isinstance(found, PredictBatch)
    assert torch.equal(found.x, x)
    snapshot = Snapshot()
    snapshot.number = 5
    assert through(snapshot).number == 5
    assert through(None) is None
    assert as_message(Marker(Kind.BEGIN, {"a": 1})) == Message(Kind.BEGIN, content={"a": 1})


def test_rounding_halves_what_is_sent_and_gives_float32_back() -> None:
    """Only float32 is rounded: tokens, and what is bfloat16 or float64 already, arrive as they are."""
    x = {
        "x": torch.randn(64, 8),
        "tokens": torch.arange(9),
        "low": torch.randn(4).bfloat16(),
        "high": torch.randn(4).double(),
    }
    y = torch.randn(64, 8)
    item = TrainBatch(0, x, y)
    exact, rounded = (pack(as_message(item, wire, item.inputs).content).size for wire in ("fp32", "bf16"))
    assert exact - rounded == 2 * 64 * 8 * 2
    found = through(item, "bf16")
    assert torch.equal(found.x["x"], x["x"].bfloat16().float())
    assert torch.equal(found.y, y.bfloat16().float())
    for name in ("tokens", "low", "high"):
        assert found.x[name].dtype == x[name].dtype
        assert torch.equal(found.x[name], x[name])


@pytest.mark.parametrize(("total", "before", "after"), [(7, 1, 3), (7, 3, 1), (8, 2, 3), (5, 4, 2), (1, 2, 2)])
def test_rows_are_divided_among_replicas_and_gathered_again(total: int, before: int, after: int) -> None:
    """Whatever the numbers of replicas: every one of the next stage gets its rows, in order, and their number."""
    rows = torch.arange(total)
    reader = LocalLayer()
    shares = [share_of(total, place, before) for place in range(before)]
    found = []
    for place in range(after):
        messages = []
        for member, share in enumerate(shares):
            if not overlap(member, before, place, after):
                continue
            item = TrainBatch(3, rows[share.start : share.stop], rows[share.start : share.stop], 0.1)
            item.share = share
            messages.append(as_message(item, "fp32", *rows_for(item, place, after, reader)))
        arrived = received(messages, place, after)
        assert arrived.share == share_of(total, place, after)
        if arrived.empty:
            assert (arrived.x, arrived.y) == (None, None)
        else:
            assert torch.equal(arrived.x, arrived.y)
            found += arrived.x.tolist()
    assert found == rows.tolist()


def test_what_replicas_have_left_is_put_together_by_their_rows() -> None:
    """Losses are means over rows; of a replica without rows nothing counts; codes are joined."""
    losses = [[{"loss": torch.tensor(float("nan"))}], [{"loss": torch.tensor(2.0)}], [{"loss": torch.tensor(5.0)}]]
    assert share_of(2, 0, 3).size == 0
    assert float(together(losses, 2, 1, predicted=False)[0]["loss"]) == 3.5
    codes = [[None], [torch.ones(1, 2)], [torch.zeros(1, 2)]]
    assert together(codes, 2, 1, predicted=True)[0].tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert result(TrainBatch(2, None, None)).content == []
