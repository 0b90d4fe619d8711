"""Information propagation: what travels with the labels, what inference carries, and how rows are divided."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ALPackage import ALStack, make_schedule, to_al
from ALPackage.errors import UnfitLayersError
from ALPackage.objectives.infopro import InformationPropagation
from models import build_text

LABELS = torch.tensor([0, 2, 1, 0])


def perceptron() -> ALStack:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    return to_al(net, 3, example=torch.randn(2, 6), objective="infopro", bridge="linear")


def text() -> ALStack:
    torch.manual_seed(0)
    vectors = torch.randn(20, 8, generator=torch.Generator().manual_seed(1))
    stack = build_text("lstm", "infopro", n_classes=3, vectors=vectors, x_hid=6, y_hid=8, lr=0.01, dropout=0.0)
    assert isinstance(stack, ALStack)
    return stack


def test_the_input_reaches_every_decoder_and_no_layer() -> None:
    stack, x = perceptron(), torch.randn(4, 6)
    hidden, y = x, LABELS
    for layer in list(stack)[:-1]:
        hidden, y = layer(hidden, y)
        assert isinstance(hidden, Tensor)
        labels, values, real = y
        assert torch.equal(labels, LABELS)
        assert torch.equal(values, x)
        assert real is None
        assert tuple(layer.losses()) == ("reconstruction", "ce")
    _, y = stack[-1](hidden, y)
    assert torch.equal(y, LABELS)
    assert tuple(stack[-1].losses()) == ("ce",)
    assert stack[0].parts()["hidden"] == [stack[0].f]


def test_inference_carries_the_features_alone() -> None:
    stack, x = perceptron().eval(), torch.randn(4, 6)
    expected = x
    for depth, layer in enumerate(stack, start=1):
        with torch.no_grad():
            expected = layer.f(expected)  # type: ignore[operator]
            logits = layer.heads["classifier"](expected)  # type: ignore[index,operator]
        assert torch.equal(stack.inference(x, depth), logits)


def test_a_single_layer_is_trained_on_cross_entropy_alone() -> None:
    stack = to_al([nn.Linear(6, 8)], 3, example=torch.randn(2, 6), objective="infopro")
    stack(torch.randn(4, 6), LABELS)
    stack.backward_and_update()
    assert [tuple(losses) for losses in stack.losses()] == [("ce",)]


def test_the_losses_of_parts_of_a_batch_average_to_those_of_the_whole() -> None:
    """A mean over all real positions of a batch would not: replicas may have rows of different lengths."""
    stack = text().eval()
    x, y = (torch.randint(1, 20, (4, 5)), torch.tensor([5, 1, 3, 2])), LABELS
    for layer in stack:
        assert layer.row_separable
        assert layer.rows(x) == 4
        parts = [layer.split(x, y, start, stop) for start, stop in ((0, 1), (1, 4))]
        losses, outputs = [], []
        with torch.no_grad():
            for part in parts:
                outputs.append(layer(*part))
                losses.append(layer.losses())
            whole = layer(x, y)
        for name, loss in layer.losses().items():
            torch.testing.assert_close(0.25 * losses[0][name] + 0.75 * losses[1][name], loss)
        joined = layer.join(outputs)
        torch.testing.assert_close(joined, whole)
        x, y = whole


def test_padding_of_texts_does_not_count() -> None:
    stack, other = text(), text()
    tokens, lengths = torch.randint(1, 20, (4, 5)), torch.tensor([5, 1, 3, 2])
    wide = nn.functional.pad(tokens, (0, 3), value=7)
    stack((tokens, lengths), LABELS)
    other((wide, lengths), LABELS)
    for one, same in zip(stack.losses(), other.losses(), strict=True):
        torch.testing.assert_close(one, same)


def test_the_first_embeddings_stay_while_the_network_s_are_trained() -> None:
    stack = text()
    first = stack[0]
    table = first.heads["original"].table.clone()  # type: ignore[index,union-attr,operator]
    trained = first.f.table.weight.detach().clone()  # type: ignore[union-attr,operator]
    data = [((torch.randint(1, 20, (4, 5)), torch.tensor([5, 1, 3, 2])), LABELS)] * 3
    with make_schedule("sequential", stack, threads=1) as schedule:
        list(schedule.run(data))
    assert torch.equal(first.heads["original"].table, table)  # type: ignore[index,union-attr,arg-type]
    assert not torch.equal(first.f.table.weight, trained)  # type: ignore[union-attr,arg-type]
    assert "heads.original.table" in first.state_dict()
    assert not any("original" in name for layer in list(stack)[1:] for name in layer.state_dict())


def test_layers_that_take_labels_alone_do_not_fit_behind_it() -> None:
    ce = to_al([nn.Linear(6, 8), nn.Linear(8, 8)], 3, example=torch.randn(2, 6), objective="ce")
    first, second, last = perceptron()
    with pytest.raises(
        UnfitLayersError, match="hands on labels with the network's input, but layer 'layer_2' takes labels"
    ):
        ALStack([first, ce[1]])
    with pytest.raises(UnfitLayersError, match="'layer_2' takes labels with the network's input"):
        ALStack([ce[0], second])
    stack = ALStack([first, second, last])
    with pytest.raises(UnfitLayersError, match="'layer_3' hands on labels, but layer 'layer_4' takes labels with the"):
        stack.append(perceptron()[1])
    stack.append(ce[1])
    assert len(stack) == 4


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"reconstruction": -1.0}, "reconstruction: got -1.0; expected a finite number >= 0"),
        ({"classification": float("nan")}, "classification: got nan"),
        ({"depth": 0}, "depth: got 0; expected a whole number of at least 1, the bridge alone"),
    ],
)
def test_mistakes_are_told(setting: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        InformationPropagation(**setting)  # type: ignore[arg-type]
