"""Items as messages and back: nothing differs, unless the numbers are rounded on their way."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ALPackage import Snapshot
from ALPackage.ranks.link import Kind, Message
from ALPackage.ranks.messages import add_result, as_item, as_message, result
from ALPackage.ranks.wire import pack, unpack
from ALPackage.stage.batch import Marker, PredictBatch, TrainBatch


def through(item: Any, wire: str = "fp32") -> Any:
    """Return what the next rank makes of an item."""
    message = as_message(item, wire)
    packed = pack(message.content)
    return as_item(Message(message.kind, message.number, unpack(packed.description, packed.parts)), "conv_1")


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
    first, second = (pack(as_message(TrainBatch(0, x, x, {"enc": lr, "ae": lr})).content) for lr in (0.1, 0.2))
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
    exact, rounded = (pack(as_message(item, wire).content).size for wire in ("fp32", "bf16"))
    assert exact - rounded == 2 * 64 * 8 * 2
    found = through(item, "bf16")
    assert torch.equal(found.x["x"], x["x"].bfloat16().float())
    assert torch.equal(found.y, y.bfloat16().float())
    for name in ("tokens", "low", "high"):
        assert found.x[name].dtype == x[name].dtype
        assert torch.equal(found.x[name], x[name])


def test_what_the_ranks_have_left_is_put_together() -> None:
    batch, losses = TrainBatch(2, None, None), [{"ae": torch.tensor(1.0)}]
    batch.losses = [{"ae": torch.tensor(0.5)}]
    other = TrainBatch(2, None, None)
    other.losses = losses
    add_result(batch, result(other).content)
    assert [float(one["ae"]) for one in batch.losses] == [0.5, 1.0]
    first, second = Snapshot(), Snapshot()
    first.state, second.state = {"a": {"layer": {}}}, {"b": {"layer": {}}}
    add_result(first, result(second).content)
    assert list(first.state) == ["a", "b"]
