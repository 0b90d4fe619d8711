"""The comparison of two checkouts sees what differs, and nothing where nothing does."""

from __future__ import annotations

import copy
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from benchmarks.equality import __main__ as equality
from benchmarks.equality import probe
from benchmarks.equality.checkout import Checkout, CheckoutError, Found

ROOT = Path(__file__).resolve().parents[2]
CASE = "lstm default continuous"


@pytest.mark.slow
def test_a_checkout_equals_itself_and_a_tampered_digest_is_noticed(tmp_path: Path) -> None:
    checkout = Checkout(ROOT, sys.executable, tmp_path)
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(checkout.steps, [[CASE], [CASE]])
    assert list(equality.differences(one, two)) == []
    assert equality.uncompared(one, two) == []
    assert len(one[CASE]["layer 2 weights"] or []) > 4
    tampered = copy.deepcopy(one)
    (tampered[CASE]["layer 2 moments"] or [])[3] = "0" * 16
    (told,) = equality.differences(one, tampered)
    assert told.startswith(f"{CASE}: layer 2 moments: 1 of ")
    assert told.endswith(f"number 4 first: {(one[CASE]['layer 2 moments'] or [])[3]} and {'0' * 16}")
    with pytest.raises(CheckoutError, match=r"probe\.py steps: KeyError: 'gru'"):
        checkout.steps(["gru default continuous"])


@pytest.mark.parametrize(
    ("one", "two", "told"),
    [
        ({"a": ["1", "2"]}, {"a": ["1", "2"]}, []),
        ({"a": ["1", "2"]}, {"a": ["2", "1"]}, ["case: a: the same in another order"]),
        ({"a": ["1", "2"]}, {"a": ["1"]}, ["case: a: 2 and 1 values"]),
        ({"a": ["1"]}, {"a": ["1"], "b": []}, ["case: b: in one of them only"]),
        ({"a": ["1"]}, {"a": None}, []),
    ],
)
def test_whatever_differs_is_told(one: Found, two: Found, told: list[str]) -> None:
    assert list(equality.differences({"case": one}, {"case": two})) == told


def test_a_case_that_is_missing_is_told() -> None:
    assert list(equality.differences({"case": {}}, {})) == ["case: in one of them only"]
    assert str(equality.Comparison(differences=list("abcdef"))) == "differs: a; b; c; d; and 2 more (0 s)"


def test_times_and_the_layout_of_checkpoints_do_not_count(tmp_path: Path) -> None:
    tensors = [torch.arange(16.0) + number for number in range(3)]
    for out, seconds in (("one", "1.5"), ("two", "2.5")):
        (tmp_path / out / "checkpoints" / "digits_vgg_al" / "run" / "turn1-epoch2-batch3").mkdir(parents=True)
        (tmp_path / out / "digits_vgg_al.csv").write_text(f"turn,train_time,loss\n1,{seconds},0.3\n")
    run = tmp_path / "one" / "checkpoints" / "digits_vgg_al" / "run"
    torch.save({"model": tensors, "means": torch.ones(2)}, run / "turn1-epoch2-batch3.pt")
    torch.save(tensors[:1], run / "turn1-epoch1-batch11.pt")
    run = tmp_path / "two" / "checkpoints" / "digits_vgg_al" / "run" / "turn1-epoch2-batch3"
    torch.save([tensors[2], tensors[1]], run / "layer_1.pt")
    torch.save({"weight": tensors[0]}, run / "layer_2.pt")
    one, two = probe.outcome(tmp_path / "one"), probe.outcome(tmp_path / "two")
    assert one == two
    assert list(one) == ["digits_vgg_al.csv turn", "digits_vgg_al.csv loss", "checkpoint of digits_vgg_al"]
    assert len(one["checkpoint of digits_vgg_al"] or []) == 3


@pytest.mark.parametrize(
    "words",
    [["nowhere"], [str(ROOT), "nowhere"], [str(ROOT), "--python", "nothing"], [str(ROOT), "--json", "no/where"]],
)
def test_a_mistake_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert equality.main(words) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
