"""The pipeline over processes: bit-equal to one process, whatever the cut, and no rank is left when one fails."""

from __future__ import annotations

import time
from collections import Counter
from functools import cache
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map

from ALPackage import Snapshot, make_schedule
from ALPackage.ranks.report import weights_of
from ALPackage.ranks.states import decoder_state
from ALPackage.testing import run_distributed
from tests.ALPackage.schedules import on_ranks
from tests.ALPackage.schedules.test_schedules import MODELS, batches, build

from ..hooked import SEED, State, assert_equal, snapshot

#: The cuts by number of ranks, by number of layers.
CUTS: dict[int, dict[int, list[list[int] | None]]] = {
    2: {3: [[0, 1, 1]], 4: [None, [0, 1, 1, 1]], 5: [None, [0, 0, 0, 0, 1]]},
    3: {3: [None], 4: [[0, 2, 2, 1]], 5: [None]},
    4: {4: [None], 5: [[0, 1, 1, 2, 3]]},
}


@cache
def alone(model: str) -> tuple[dict[str, Any], State, Snapshot]:
    """Return what one process makes of it, layer after layer."""
    stack, taken = build(model), Snapshot()
    with make_schedule("sequential", stack, threads=1, seed=SEED) as schedule:
        found = on_ranks.run_as_rank_0(schedule, stack, batches(model), taken)
    return found, snapshot(stack), taken


def assert_as_alone(ranks: list[dict[str, Any]], model: str) -> None:
    """Compare all that the ranks have with what one process has."""
    expected, state, taken = alone(model)
    first = ranks[0]
    assert first["losses"] == expected["losses"]
    assert all(map(torch.equal, tree_leaves(first["predictions"]), tree_leaves(expected["predictions"])))
    assert first["number"] == taken.number
    assert tree_map(_number, first["snapshot"]) == tree_map(
        _number, {name: taken.state[name] for name in first["snapshot"]}
    )
    assert list(first["snapshot"]) == list(taken.state)
    together: State = {}
    for one in ranks:
        together |= one["state"]
    assert_equal(together, state)
    assert [name for one in sorted(ranks, key=lambda one: order(one, state)) for name in one["own"]] == list(
        build(model).names
    )


def order(one: dict[str, Any], state: State) -> int:
    names = list(dict.fromkeys(name.split()[1].split(".")[1] for name in state if name.startswith("parameter")))
    return names.index(one["own"][0])


def _number(leaf: Any) -> Any:
    return leaf.tolist() if isinstance(leaf, torch.Tensor) else leaf


@pytest.mark.parametrize("world", [2, *(pytest.param(world, marks=pytest.mark.slow) for world in (3, 4))])
def test_ranks_are_equal_to_one_process_bit_for_bit(world: int) -> None:
    """Losses, weights, buffers, moments, a snapshot on the way, and predictions at every depth; an odd last batch."""
    cases = [(model, cut, {}) for model in MODELS for cut in CUTS[world].get(len(build(model)), [])]
    assert len(cases) >= 4
    cases += [(model, cut, {"wire": "compressed"}) for model, cut, _ in cases[:2]]
    found = run_distributed(on_ranks.train_cases, world, cases, timeout=240.0)
    for number, (model, _, _) in enumerate(cases):
        assert_as_alone([of_rank[number] for of_rank in found], model)
    for number in (0, 1):
        plain, compressed = (sum(found[0][case]["reports"][0].sent.values()) for case in (number, number - 2))
        assert compressed < plain


def test_a_rank_has_its_own_layers_in_memory() -> None:
    found = run_distributed(on_ranks.train_model, 2, "transformer", None)
    stack = build("transformer")
    whole = sum(one.nbytes for one in stack.state_dict().values())
    elsewhere = [layer for name, layer in stack.items() if name not in found[0]["own"]]
    decoders = sum(one.nbytes for layer in elsewhere for _, one in decoder_state(layer))
    assert sum(one["bytes"] for one in found) == whole + decoders, "rank 0 has the others' decoders besides"
    assert 0 < decoders < 0.2 * whole
    assert min(one["bytes"] for one in found) > 0.1 * whole
    reports = found[0]["reports"]
    assert [report.layers for report in reports] == [one["own"] for one in found]
    assert sum(report.weights for report in reports) == found[0]["weights"] == weights_of(list(stack.items()))
    assert all(report.moments > report.weights for report in reports), "Adam has two of each parameter"
    (_, sent), (_, results) = [*reports[0].sent.items(), *reports[1].sent.items()]
    assert sent > results > 0
    counts: Counter[str] = Counter()
    for usage in found[0]["usage"]:
        counts.update(usage["layer_batches"])
    expected = dict.fromkeys(stack.names, len(batches("transformer")))
    assert counts == expected, "rank 0 knows everybody's usage"


def test_what_is_built_without_values_gets_memory_for_its_own_layers_alone() -> None:
    first, second = run_distributed(on_ranks.memory_of, 2, "lstm")
    layers = list(build("lstm").items())
    assert (first["weights"], second["weights"]) == (weights_of(layers[:2]), weights_of(layers[2:]))
    assert first["built"] >= weights_of(layers)
    assert second["built"] == 0
    assert second["weights"] <= second["taken"] < 1.1 * second["weights"]
    assert first["refused"].startswith("layer 'embedding' is on the device meta, so rank 0 has no weights to send")


@pytest.mark.slow
def test_buffers_that_no_checkpoint_has_are_those_of_rank_0() -> None:
    expected = on_ranks.reconstruct(None)
    found = run_distributed(on_ranks.reconstruct, 2, [0, 1, 1, 1])[0]
    assert found["losses"] == expected["losses"]
    assert tree_map(_number, found["state"]) == tree_map(_number, expected["state"])


@pytest.mark.parametrize("rank", [*(pytest.param(rank, marks=pytest.mark.slow) for rank in (0, 2)), 1])
def test_a_failure_is_raised_in_every_rank_and_says_where_it_was(rank: int) -> None:
    began = time.monotonic()
    found = run_distributed(on_ranks.fail_on, 3, rank, 3)
    assert time.monotonic() - began < 40.0
    for number, (kind, words, where) in enumerate(found):
        assert kind == "StageError"
        assert f"layer 'conv_{rank}' failed on batch 3" in words
        assert words.endswith("ValueError: the weather is bad")
        assert where == (None if number == rank else rank)


def test_what_a_script_changes_between_runs_goes_along() -> None:
    """Learning rates, weight decay, which parameters train; and an open run does not keep a schedule from closing."""
    expected = on_ranks.change_between_runs(None)
    found = run_distributed(on_ranks.change_between_runs, 2, [0, 1, 1])[0]
    assert list(found) == list(expected)
    for layer, state in expected.items():
        assert all(torch.equal(found[layer][name], value) for name, value in state.items())


@pytest.mark.slow
def test_a_layer_that_cannot_be_copied_ends_the_check_and_not_the_run() -> None:
    assert run_distributed(on_ranks.train_what_cannot_be_copied, 3) == [len(batches("convolutions")), 0, 0]


def test_what_is_sent_arrives() -> None:
    rounds = [(torch.randn(4, 3).t(), {"n": 1}), (torch.zeros(0), None), torch.arange(5), torch.arange(5), "no tensor"]
    (messages, size), arrived = run_distributed(on_ranks.sent_and_received, 2, rounds)
    assert messages == len(rounds)
    assert size == 4 * 3 * 4 + 2 * 5 * 8
    for found, expected in zip(arrived, rounds, strict=True):
        assert all(
            torch.equal(one, other) if isinstance(other, torch.Tensor) else one == other
            for one, other in zip(tree_leaves(found), tree_leaves(expected), strict=True)
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_ranks_that_share_a_gpu_are_equal_to_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    ((losses, state),) = run_distributed(on_ranks.train_on, 1, "cuda:0", None)
    (found, first), (_, second) = run_distributed(on_ranks.train_on, 2, "cuda:0", [0, 0, 1, 1])
    assert found == losses
    assert_equal(first | second, state)


def test_without_a_process_group_it_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="there is no process group; start the script with torchrun"):
        make_schedule("distributed", build("convolutions"))
