"""LSTM and Transformer: padding that nothing reads, true last states, positions, and a tiny batch that is learned."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ALPackage.objectives.association import ASSOCIATIONS
from ALPackage.randomness import Dropout
from models import model_names, parameter_counts
from models.text_parts import Embedding, Mean, real_positions

from .small_text import LENGTHS, al, bp, repadded, text, vectors

TEXT_MODELS = model_names("text")

# --- layers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", TEXT_MODELS)
def test_the_number_of_layers(model: str) -> None:
    assert (len(al(model)), len(bp(model))) == (4, 5)
    assert (len(al(model, al_layers=1)), len(bp(model, al_layers=6))) == (2, 8)
    assert (len(al(model, n_layers=2)), len(bp(model, n_layers=2))) == (4, 5)
    assert list(bp(model).layers)[:-1] == al(model).names == al(model, n_layers=2).names


@pytest.mark.parametrize("cut", ["apart", "joined"])
@pytest.mark.parametrize("model", TEXT_MODELS)
def test_layers_within_an_al_layer_are_those_of_a_deeper_network(model: str, cut: str) -> None:
    """However they are grouped, six LSTM or encoder layers are one network, in BP's form and in AL's."""
    logits: list[torch.Tensor] = []
    for al_layers, n_layers in ((6, 1), (3, 2), (1, 6)):
        torch.manual_seed(0)
        twin = bp(model, cut=cut, al_layers=al_layers, n_layers=n_layers).eval()
        logits.append(twin(text()))
        torch.manual_seed(0)
        stack = al(model, cut=cut, al_layers=al_layers, n_layers=n_layers).eval()
        states = text()
        for layer in stack:
            states = layer.inference(states, "f")
        assert torch.equal(twin.layers["head"](states), logits[-1])
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[0], logits[2])


@pytest.mark.parametrize("model", TEXT_MODELS)
def test_every_layer_within_an_al_layer_is_trained_and_drops_out(model: str) -> None:
    torch.manual_seed(0)
    stack = al(model, n_layers=3, dropout=0.4, lr=0.1)
    before = [parameter.clone() for parameter in stack.parameters()]
    stack(text(), torch.tensor([0, 1, 2, 3]))
    stack.backward_and_update()
    assert not any(torch.equal(one, two) for one, two in zip(stack.parameters(), before, strict=True))
    for layer in list(stack)[1:]:
        dropouts = [module for module in layer.enc.f.modules() if isinstance(module, Dropout)]
        assert len(dropouts) == 3 * (1 if model == "lstm" else 2)
        assert {module.p for module in dropouts} == {0.4}


@pytest.mark.parametrize("model", TEXT_MODELS)
def test_one_layer_keeps_the_names_of_its_weights(model: str) -> None:
    """Checkpoints name weights: where there is nothing to chain, nothing stands around the layer."""
    first = "ahead.weight_ih_l0" if model == "lstm" else "attention_norm.weight"
    assert next(iter(al(model)[1].enc.f.state_dict())) == first
    assert next(iter(al(model, n_layers=2)[1].enc.f.state_dict())) == f"0.{first}"


@pytest.mark.parametrize("model", TEXT_MODELS)
def test_the_embedding_may_be_one_layer_with_the_next(model: str) -> None:
    assert al(model, cut="joined").names == al(model).names[1:]
    outputs = []
    for cut in ("apart", "joined"):
        torch.manual_seed(0)
        outputs.append(bp(model, cut=cut).eval()(text()))
    assert torch.equal(*outputs)


@pytest.mark.parametrize("model", TEXT_MODELS)
def test_a_joined_embedding_learns_from_the_layer_that_reads_it(model: str) -> None:
    table = vectors()
    stack = al(model, cut="joined", vectors=table, dropout=0.0, lr=0.1)
    stack(text(), torch.tensor([0, 1, 2, 3]))
    stack.backward_and_update()
    weight = stack[0].enc.f[0].table.weight  # type: ignore[index, union-attr]
    assert not torch.equal(weight, table)  # type: ignore[arg-type]


def test_an_unknown_cut_lists_the_right_ones() -> None:
    with pytest.raises(ValueError, match=r'^cut: got "half"; expected one of "apart", "joined"$'):
        al("lstm", cut="half")


def test_the_embedding_gives_each_token_its_own_vector() -> None:
    """Guards a bug: rows shifted by two, so that every word got another word's vector."""
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


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("fill", [0, 17])
@pytest.mark.parametrize("more", [0, 3])
@pytest.mark.parametrize("model", TEXT_MODELS)
def test_padding_never_changes_anything(model: str, more: int, fill: int, n_layers: int) -> None:
    """Guards a bug: means over padding, LSTMs that ran through it, attention to it."""
    torch.manual_seed(1)
    stack = al(model, n_layers=n_layers).eval()
    torch.manual_seed(1)
    twin = bp(model, n_layers=n_layers).eval()
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
    features[~real_positions(LENGTHS, 7)] = 1e30
    torch.testing.assert_close(Mean()((features, LENGTHS)), expected)


def test_real_positions_are_those_before_the_length() -> None:
    assert real_positions(torch.tensor([1, 3]), 3).tolist() == [[True, False, False], [True, True, True]]


# --- dropout, activations, sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", TEXT_MODELS)
def test_no_module_draws_from_the_process_wide_generator(model: str) -> None:
    for module in al(model, dropout=0.5, n_layers=2).modules():
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
    """Guards a bug: the decoder ended in tanh before cross-entropy, so logits lay within [-1, 1]."""
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
    """Guards a bug, bridges larger than the network, at the sizes of the shipped config."""
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
        losses.append([one["assoc"].item() for one in stack.losses()])
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
def test_a_linear_bridge_has_the_form_of_the_bp_head(model: str) -> None:
    head = bp(model).layers["head"]
    bridge = al(model, bridge="linear")[-1].enc.b
    width = linears(head)[0][0]
    assert linears(head) == [(width, 5)]
    assert linears(bridge) == [(width, 8)]
    assert linears(al(model, bridge="hidden")[-1].enc.b) == [(width, 8), (8, 8)]
    kinds = [type(m) for m in head.modules()][1:]
    assert [type(m) for m in bridge.modules() if type(m) in kinds] == kinds


@pytest.mark.parametrize("model", TEXT_MODELS)
def test_an_unknown_bridge_is_refused(model: str) -> None:
    with pytest.raises(ValueError, match='bridge: got "pool"; expected one of "linear", "hidden"'):
        al(model, bridge="pool")
