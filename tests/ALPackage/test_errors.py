"""StageError: its words, and its way through pickle to another process."""

from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest

from ALPackage import StageError


class Unpicklable(Exception):  # noqa: N818 (what it is)
    """Asks for an argument that pickle does not give back."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one)
        self.two = two


class Lock(Exception):  # noqa: N818
    """Holds what cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("locked")
        self.held: Any = lambda: None


class Mute(Exception):  # noqa: N818
    """Cannot say what it is, nor be pickled."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    def __reduce__(self) -> Any:
        raise RuntimeError("no pickle")


@pytest.mark.parametrize(
    ("layer", "batch", "words"),
    [
        ("conv_1", 7, "layer 'conv_1' failed on batch 7: ValueError: wrong"),
        ("conv_1", None, "layer 'conv_1' failed before its first batch: ValueError: wrong"),
        ("loader", 0, "loader failed on batch 0: ValueError: wrong"),
    ],
)
def test_the_message_says_where_and_what(layer: str, batch: int | None, words: str) -> None:
    error = StageError(layer, batch, cause := ValueError("wrong"))
    assert str(error) == words
    assert error.__cause__ is cause


def test_it_survives_pickle_with_its_cause() -> None:
    """Guards a bug: unpickling was a TypeError."""
    error = StageError("conv_1", 7, KeyError("x"))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is StageError
    assert (str(again), again.layer, again.batch) == (str(error), "conv_1", 7)
    assert type(again.__cause__) is KeyError
    assert again.__cause__.args == ("x",)
    assert str(pickle.loads(pickle.dumps(again))) == str(error)


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (Unpicklable("a", "b"), "Unpicklable: a"),
        (Lock(), "Lock: locked"),
        (Mute(), "Mute: (no description: its __str__ failed)"),
    ],
)
def test_a_cause_that_cannot_be_pickled_leaves_its_words(cause: Exception, words: str) -> None:
    error = StageError("conv_1", None, cause)
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert str(again).endswith(words)
    assert type(again.__cause__) is RuntimeError
    assert str(again.__cause__) == words


def fail() -> None:
    """Fail as a worker in another process would."""
    raise StageError("conv_1", 7, Lock())


def test_it_crosses_a_process_boundary() -> None:
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        pytest.raises(StageError, match=r"conv_1.*batch 7.*locked") as caught,
    ):
        pool.submit(fail).result(timeout=60)
    assert caught.value.layer == "conv_1"
