"""LSTM and Transformer: padding that nothing reads, true last states, positions, and a tiny batch that is learned."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ALPackage import ALStack
from ALPackage.losses import ASSOCIATIONS
from models import TEXT_MODELS, BPStack, build_text, parameter_counts
from models.lstm import BiLSTM, reversed_positions
from models.text import Embedding, LastStates, Mean, real_positions, sinusoids
from models.transformer import EncoderLayer

LOCAL: dict[str, Any] = {"association": "contrastive", "temperature": 0.2, "lr": 1e-3, "weight_decay": 0.0}
SIZES: dict[str, Any] = {"n_classes": 5, "x_hid": 6, "y_hid": 8, "n_heads": 2}
LENGTHS = torch.tensor([1, 4, 7, 2])


def vectors() -> Tensor:
    """Return word vectors (30, 8), of which the padding's are not zero: that may not matter either."""
    return torch.randn(30, 8, generator=torch.Generator().manual_seed(3))


def al(model: str, **options: Any) -> ALStack:
    """Return the AL form at a tiny size, of which `options` changes some."""
    stack = build_text(model, "al", **{"vectors": vectors(), **SIZES, **LOCAL, **options})
    assert isinstance(stack, ALStack)
    return stack


def bp(model: str, **options: Any) -> BPStack:
    """Return the BP form at a tiny size, of which `options` changes some."""
    stack = build_text(model, "bp", **{"vectors": vectors(), **SIZES, **LOCAL, **options})
    assert isinstance(stack, BPStack)
    return stack


def text() -> tuple[Tensor, Tensor]:
    """Return tokens (4, 7), 0 behind each sample's length, and the lengths."""
    tokens = torch.randint(1, 30, (4, 7), generator=torch.Generator().manual_seed(4))
    return tokens.where(real_positions(LENGTHS, 7), 0), LENGTHS


def repadded(x: tuple[Tensor, Tensor], more: int, fill: int) -> tuple[Tensor, Tensor]:
    """Return the same text with `more` columns of padding, all padding being the token `fill`."""
    tokens, lengths = x
    wide = F.pad(tokens, (0, more))
    return wide.where(real_positions(lengths, wide.shape[1]), fill), lengths


# --- layers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", TEXT_MODELS)
def test_the_number_of_layers(model: str) -> None:
    assert (len(al(model)), len(bp(model))) == (4, 5)
    assert (len(al(model, n_layers=1)), len(bp(model, n_layers=6))) == (2, 8)
    assert list(bp(model).layers)[:-1] == al(model).names


def test_the_embedding_gives_each_token_its_own_vector() -> None:
    """Guards fault 3: rows shifted by two, so that every word got another word's vector."""
    table = vectors()
    layer = Embedding(table, dropout=0.0, positional=False)
    found, lengths = layer((torch.tensor([[5, 29, 1]]), torch.tensor([3])))
    assert torch.equal(found[0], table[[5, 29, 1]])
    assert lengths.tolist() == [3]
    found.sum().backward()
    table_grad = layer.table.weight.grad
    assert table_grad is not None
    assert table_grad.any(1).nonzero().flatten().tolist() == [1, 5, 29], "the vectors are trained on"


def test_the_embedding_copies_the_vectors_that_it_starts_from() -> None:
    table = vectors()
    stack = al("lstm", vectors=table, lr=0.1)
    stack(text(), torch.tensor([0, 1, 2, 3]))
    stack.backward_and_update()
    assert torch.equal(table, vectors())


@pytest.mark.parametrize("model", TEXT_MODELS)
def test_a_zero_padding_row_stays_zero(model: str) -> None:
    table = vectors()
    table[0] = 0.0
    stack = al(model, vectors=table, dropout=0.0, lr=0.1, weight_decay=0.1)
    for _ in range(3):
        stack(repadded(text(), 2, 0), torch.tensor([0, 1, 2, 3]))
        stack.backward_and_update()
    weight = stack[0].enc.f.table.weight  # type: ignore[union-attr]
    assert not weight[0].any()  # type: ignore[index]
    assert not torch.equal(weight[1:], table[1:])  # type: ignore[index]


# --- padding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", [0, 17])
@pytest.mark.parametrize("more", [0, 3])
@pytest.mark.parametrize("model", TEXT_MODELS)
def test_padding_never_changes_anything(model: str, more: int, fill: int) -> None:
    """Guards fault 9: means over padding, LSTMs that ran through it, attention to it."""
    torch.manual_seed(1)
    stack = al(model).eval()
    torch.manual_seed(1)
    twin = bp(model).eval()
    one, other = text(), repadded(text(), more, fill)
    assert more or fill == 0 or not torch.equal(one[0], other[0])
    torch.testing.assert_close(twin(other), twin(one))
    for a, b in zip(stack.inference_by_depth(other), stack.inference_by_depth(one), strict=True):
        torch.testing.assert_close(a, b)
    real = real_positions(LENGTHS, 7)
    for layer in stack:
        one, other = layer.inference(one, "f"), layer.inference(other, "f")
        assert torch.equal(one[1], LENGTHS)
        assert torch.equal(other[1], LENGTHS)
        assert other[0].shape[1] == 7 + more
        torch.testing.assert_close(other[0][:, :7][real], one[0][real])
        torch.testing.assert_close(layer.inference(other, "b"), layer.inference(one, "b"))


@pytest.mark.parametrize("model", TEXT_MODELS)
def test_padding_gets_no_gradient_and_changes_none(model: str) -> None:
    grads = []
    for x in (text(), repadded(text(), 3, 17)):
        torch.manual_seed(1)
        stack = al(model, dropout=0.0)
        stack(x, torch.tensor([0, 1, 2, 3]))
        stack.backward()
        grads.append([p.grad for p in stack.parameters()])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("model", TEXT_MODELS)
def test_a_sample_does_not_depend_on_its_batch(model: str) -> None:
    twin, stack = bp(model).eval(), al(model).eval()
    tokens, lengths = text()
    together, depths = twin((tokens, lengths)), stack.inference_by_depth((tokens, lengths))
    for row, length in enumerate(lengths.tolist()):
        alone = tokens[row : row + 1, :length], lengths[row : row + 1]
        torch.testing.assert_close(twin(alone)[0], together[row])
        for depth, prediction in enumerate(stack.inference_by_depth(alone)):
            torch.testing.assert_close(prediction[0], depths[depth][row])


def test_the_mean_ignores_padding() -> None:
    features = torch.randn(4, 7, 3)
    expected = torch.stack([features[row, :length].mean(0) for row, length in enumerate(LENGTHS.tolist())])
    features[~real_positions(LENGTHS, 7)] = float("nan")
    torch.testing.assert_close(Mean()((features, LENGTHS)), expected)


def test_real_positions_are_those_before_the_length() -> None:
    assert real_positions(torch.tensor([1, 3]), 3).tolist() == [[True, False, False], [True, True, True]]


# --- the LSTM -------------------------------------------------------------------------------------------------------


def packed_twin(layer: Any) -> nn.LSTM:
    """Return torch's bidirectional LSTM with the weights of a `BiLSTM`."""
    twin = nn.LSTM(layer.ahead.input_size, layer.ahead.hidden_size, batch_first=True, bidirectional=True)
    weights = {**layer.ahead.state_dict(), **{f"{name}_reverse": w for name, w in layer.back.state_dict().items()}}
    twin.load_state_dict(weights)
    return twin


def test_the_bidirectional_lstm_equals_torch_s_on_packed_sequences() -> None:
    layer = BiLSTM(5, 4, dropout=0.0)
    features, lengths = torch.randn(6, 9, 5), torch.tensor([9, 1, 4, 8, 2, 9])
    real = real_positions(lengths, 9)[..., None]
    one, other = features.clone().requires_grad_(), features.clone().requires_grad_()
    states = layer((one, lengths))[0] * real
    twin = packed_twin(layer)
    packed = nn.utils.rnn.pack_padded_sequence(other, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(twin(packed)[0], batch_first=True, total_length=9)
    torch.testing.assert_close(states, expected)
    wanted = torch.randn_like(states)
    (states * wanted).sum().backward()
    (expected * wanted).sum().backward()
    torch.testing.assert_close(one.grad, other.grad)
    assert one.grad is not None
    assert not one.grad[~real[..., 0]].any()  # padding is never read
    for name, weight in layer.ahead.named_parameters():
        torch.testing.assert_close(weight.grad, getattr(twin, name).grad)
        torch.testing.assert_close(getattr(layer.back, name).grad, getattr(twin, f"{name}_reverse").grad)


def test_places_are_mirrored_within_the_length_and_padding_stays() -> None:
    places = reversed_positions(torch.tensor([4, 1, 3]), 4)
    assert places.tolist() == [[3, 2, 1, 0], [0, 1, 2, 3], [2, 1, 0, 3]]


def test_the_bp_lstm_reads_the_true_last_states() -> None:
    """Guards fault 9: it read position -1, which is padding in every sample but the longest."""
    twin = bp("lstm", reading="last").eval()
    layers = list(twin.layers.values())
    tokens, lengths = text()
    logits = twin((tokens, lengths))
    for row, length in enumerate(lengths.tolist()):
        x: Any = layers[0].table(tokens[row : row + 1, :length])  # type: ignore[operator]
        for layer in layers[1:-1]:
            x, (last, _) = packed_twin(layer)(x)
        read = torch.cat([last[0], last[1]], dim=1)  # the last states of both directions
        torch.testing.assert_close(layers[-1][1](read), logits[row : row + 1])  # type: ignore[index]


def test_last_states_by_hand() -> None:
    features = torch.arange(12.0).reshape(1, 3, 4).repeat(2, 1, 1)
    read = LastStates()((features, torch.tensor([2, 3])))
    assert read.tolist() == [[4.0, 5.0, 2.0, 3.0], [8.0, 9.0, 2.0, 3.0]]


def test_lstm_hidden_sizes() -> None:
    stack = bp("lstm", x_hid=6)
    shapes = [(m.ahead.input_size, m.ahead.hidden_size) for m in stack.modules() if isinstance(m, BiLSTM)]
    assert shapes == [(8, 6), (12, 6), (12, 6)]


# --- the Transformer ------------------------------------------------------------------------------------------------


def test_sinusoids_equal_the_paper_s_formula() -> None:
    table = sinusoids(11, 6)
    for position in range(11):
        for pair in range(3):
            angle = position / 10_000 ** (2 * pair / 6)
            assert table[position, 2 * pair].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[position, 2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


@pytest.mark.parametrize("width", [1, 2, 7, 50, 300])
def test_sinusoids_of_any_width(width: int) -> None:
    assert sinusoids(5, width).shape == (5, width)
    assert sinusoids(5, width).abs().max() <= 1.0


def test_the_transformer_sees_the_order_of_words() -> None:
    """Guards fault 9: there was no positional encoding, so a text was a bag of words."""
    twin, stack = bp("transformer").eval(), al("transformer").eval()
    lengths = torch.tensor([4])
    one, other = torch.tensor([[3, 9, 5, 12]]), torch.tensor([[12, 5, 9, 3]])
    assert not torch.allclose(twin((one, lengths)), twin((other, lengths)), atol=1e-4)
    assert not torch.allclose(stack.inference((one, lengths)), stack.inference((other, lengths)), atol=1e-6)


def test_attention_equals_a_slow_reference_per_sample_and_head() -> None:
    layer = EncoderLayer(8, 2, 6, 0.0).eval()
    features = torch.randn(4, 7, 8)
    found = layer._attend(features, LENGTHS)
    query, key, value = layer.project_in(features).split(8, dim=-1)
    for row, length in enumerate(LENGTHS.tolist()):
        heads = []
        for head in (slice(0, 4), slice(4, 8)):
            scores = query[row, :length, head] @ key[row, :length, head].T / 2.0
            heads.append(scores.softmax(-1) @ value[row, :length, head])
        torch.testing.assert_close(found[row, :length], layer.project_out(torch.cat(heads, -1)))


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="3 heads for a width of 8") as caught:
        bp("transformer", n_heads=3)
    assert "\n" not in str(caught.value)


# --- dropout, activations, sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", TEXT_MODELS)
def test_no_module_draws_from_the_process_wide_generator(model: str) -> None:
    for module in al(model, dropout=0.5).modules():
        assert not isinstance(module, (nn.Dropout, nn.MultiheadAttention))
        assert getattr(module, "dropout", 0.0) == 0.0 or isinstance(module.dropout, nn.Module)


@pytest.mark.parametrize("model", TEXT_MODELS)
def test_dropout_acts_in_training_and_not_in_evaluation(model: str) -> None:
    for twin in (bp(model, dropout=0.5), bp(model, dropout=0.0)):
        wet = twin.train()(text())
        assert torch.equal(twin(text()), wet) is (twin.layers["embedding"].dropout.p == 0.0)  # type: ignore[union-attr]
        twin.eval()
        assert torch.equal(twin(text()), twin(text()))


@pytest.mark.parametrize("positional", [False, True])
def test_word_dropout_drops_whole_vectors_and_keeps_their_mean(positional: bool) -> None:
    layer = Embedding(torch.ones(30, 6), dropout=0.0, positional=positional, word_dropout=0.25)
    tokens = (torch.full((400, 50), 3), torch.full((400,), 50))
    still = layer.eval()(tokens)[0]
    dropped = layer.train()(tokens)[0] - still + 1.0
    kept = dropped.mean(2)
    assert torch.allclose(dropped, kept[..., None].expand_as(dropped), atol=1e-6), (
        "all numbers of a word share its fate"
    )
    assert torch.allclose(kept, torch.where(kept > 0.5, 4 / 3, 0.0), atol=1e-6)
    assert abs(kept.mean() - 1.0) < 0.02
    assert torch.equal(still, layer.eval()(tokens)[0])


def test_word_dropout_reaches_both_forms_of_both_models() -> None:
    for model in TEXT_MODELS:
        for stack in (al(model, word_dropout=0.2)[0].enc.f, bp(model, word_dropout=0.2).layers["embedding"]):
            assert stack.word_dropout.p == 0.2  # type: ignore[union-attr]


@pytest.mark.parametrize("model", TEXT_MODELS)
def test_nothing_squashes_the_first_decoder(model: str) -> None:
    """Guards fault 8: the decoder ended in tanh before cross-entropy, so logits lay within [-1, 1]."""
    stack = al(model).eval()
    decoder = stack[0].ae.h
    plain = stack.inference(text())
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(1000.0)
    grown = stack.inference(text())
    torch.testing.assert_close(grown, 1000.0 * plain, rtol=1e-4, atol=1e-3)
    assert grown.abs().max() > 10.0


@pytest.mark.parametrize("model", TEXT_MODELS)
def test_the_bridges_are_much_smaller_than_the_network(model: str) -> None:
    """Guards fault 7, at the sizes of the shipped config."""
    stack = al(model, vectors=torch.zeros(2, 300), x_hid=256, y_hid=128, n_heads=6)
    bridges = sum(p.numel() for layer in stack for p in layer.enc.b.parameters())
    network = sum(p.numel() for layer in list(stack)[1:] for p in layer.enc.f.parameters())  # without the embedding
    assert bridges < network / 4


@pytest.mark.parametrize("association", ASSOCIATIONS)
@pytest.mark.parametrize("model", TEXT_MODELS)
def test_al_learns_a_tiny_batch_at_every_depth(model: str, association: str) -> None:
    torch.manual_seed(2)
    stack = al(model, association=association, lr=0.02, dropout=0.1)
    labels = torch.arange(15) % 5
    lengths = torch.randint(3, 8, (15,))
    tokens = torch.randint(6, 30, (15, 7))
    tokens[:, 1] = 1 + labels  # the word that tells the class
    losses = []
    for _ in range(60):
        stack((tokens, lengths), labels)
        stack.backward_and_update()
        losses.append([loss.item() for loss, _ in stack.loss()])
    assert all(last < first for first, last in zip(losses[0], losses[-1], strict=True))
    stack.eval()
    for prediction in stack.inference_by_depth((tokens, lengths)):
        assert (prediction.argmax(-1) == labels).float().mean() > 0.8  # chance is 0.2


def test_parameters_are_counted_as_by_hand() -> None:
    lstms = [4 * 2 * (6 * d + 6 * 6 + 6 + 6) for d in (8, 12, 12)]  # four gates, two directions
    assert parameter_counts(bp("lstm"))[0] == 30 * 8 + sum(lstms) + 12 * 5 + 5
    coders = 5 * 8 + 3 * 8 * 8  # g, whose weights are h's too
    bridges = [8 * 8 + 8 + 8 * 8 + 8] + [12 * 8 + 8 + 8 * 8 + 8] * 3
    network = 30 * 8 + sum(lstms)
    stack = al("lstm", bridge="hidden")
    assert parameter_counts(stack) == (network + sum(bridges) + coders, network + bridges[-1] + coders)
    # norms, attention in and out, feed-forward in and out
    encoder = 2 * 16 + (8 * 24 + 24) + (8 * 8 + 8) + (8 * 6 + 6) + (6 * 8 + 8)
    head = 16 + 8 * 5 + 5
    assert parameter_counts(bp("transformer"))[0] == 30 * 8 + 3 * encoder + head
    bridge = 16 + 2 * (8 * 8 + 8)
    network = 30 * 8 + 3 * encoder
    stack = al("transformer", bridge="hidden")
    assert parameter_counts(stack) == (network + 4 * bridge + coders, network + bridge + coders)


def linears(module: nn.Module) -> list[tuple[int, int]]:
    """Return the shapes of the linear layers, in order."""
    return [(m.in_features, m.out_features) for m in module.modules() if isinstance(m, nn.Linear)]


@pytest.mark.parametrize("model", TEXT_MODELS)
def test_a_linear_bridge_is_what_bp_s_head_is(model: str) -> None:
    head = bp(model).layers["head"]
    bridge = al(model, bridge="linear")[-1].enc.b
    width = linears(head)[0][0]
    assert linears(head) == [(width, 5)]
    assert linears(bridge) == [(width, 8)]
    assert linears(al(model, bridge="hidden")[-1].enc.b) == [(width, 8), (8, 8)]
    kinds = [type(m) for m in head.modules()][1:]
    assert [type(m) for m in bridge.modules() if type(m) in kinds] == kinds


@pytest.mark.parametrize("model", TEXT_MODELS)
def test_a_bridge_that_there_is_not_is_refused(model: str) -> None:
    with pytest.raises(ValueError, match="bridge: got 'pool'; expected one of linear, hidden"):
        al(model, bridge="pool")


def test_a_reading_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="reading: got 'first'; expected one of mean, last"):
        bp("lstm", reading="first")


def test_the_mean_is_read_by_head_and_bridges_alike() -> None:
    for reading, kind in (("mean", Mean), ("last", LastStates)):
        parts = [
            bp("lstm", reading=reading).layers["head"],
            *(layer.enc.b for layer in list(al("lstm", reading=reading))[1:]),
        ]
        assert all(any(isinstance(m, kind) for m in part.modules()) for part in parts)
