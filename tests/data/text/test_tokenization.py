"""The tokenizer and the vocabulary, compared with what torchtext 0.18.0 returned, and with torchtext if it loads."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from data.errors import DataError
from data.text import tokenization
from data.text.tokenization import TextBackend, basic_english, resolve_backend

GOLDEN = Path(__file__).parents[2] / "golden" / "torchtext"


def golden(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


@pytest.fixture(params=["builtin", pytest.param("torchtext", marks=pytest.mark.torchtext)])
def tools(request: pytest.FixtureRequest) -> TextBackend:
    try:
        return resolve_backend(request.param)
    except DataError as error:
        pytest.skip(str(error))


def test_tokens_equal_the_golden_ones(tools: TextBackend) -> None:
    cases = golden("basic_english.json")
    assert len(cases) == 500
    for case in cases:
        assert tools.tokenize(case["text"]) == case["tokens"], case["text"]


@pytest.mark.parametrize("number", range(4))
def test_vocabulary_equals_the_golden_one(tools: TextBackend, number: int) -> None:
    facts = golden("vocab.json")
    case = facts["cases"][number]
    vocabulary = tools.build_vocabulary(facts["docs"], min_freq=case["min_freq"], max_tokens=case["max_tokens"])
    assert vocabulary.get_itos() == case["itos"]
    documents = [*facts["docs"][:10], ["never-seen-token", "the"]]
    assert [vocabulary(document) for document in documents] == case["encode"]


def test_equal_counts_are_in_lexicographic_order(tools: TextBackend) -> None:
    vocabulary = tools.build_vocabulary([["b", "a", "é", "Z", "c", "c"]])
    assert vocabulary.get_itos() == ["<pad>", "<unk>", "c", "Z", "a", "b", "é"]


def test_a_special_in_a_text_is_in_the_vocabulary_once(tools: TextBackend) -> None:
    vocabulary = tools.build_vocabulary([["<unk>", "<unk>", "a", "a", "b"]], max_tokens=4)
    assert vocabulary.get_itos() == ["<pad>", "<unk>", "a"]


def test_an_empty_corpus_has_the_specials(tools: TextBackend) -> None:
    vocabulary = tools.build_vocabulary([])
    assert vocabulary.get_itos() == ["<pad>", "<unk>"]
    assert vocabulary(["x"]) == [1]


def test_a_vocabulary_without_room_for_a_word_is_refused(tools: TextBackend) -> None:
    with pytest.raises(DataError, match="vocab_size: got 2; expected at least 3"):
        tools.build_vocabulary([["a"]], max_tokens=2)


def test_a_break_is_a_space_and_negations_stay() -> None:
    assert basic_english("good.<br /><br />Not bad, no?") == ["good", ".", "not", "bad", ",", "no", "?"]


def test_unknown_backend_is_refused() -> None:
    with pytest.raises(DataError, match="got 'spacy'; expected one of auto, builtin, torchtext"):
        resolve_backend("spacy")


@pytest.mark.parametrize(
    ("failure", "reason"),
    [(ModuleNotFoundError("torchtext"), "is not installed"), (OSError("undefined symbol"), "does not load with")],
)
def test_without_torchtext_auto_is_builtin_and_a_request_for_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, reason: str
) -> None:
    def fail() -> None:
        raise failure

    monkeypatch.setattr(tokenization, "import_torchtext", fail)
    found = resolve_backend("auto")
    assert found.name == "builtin"
    assert reason in found.note
    with pytest.raises(DataError, match=f"{reason}.*requirements-torchtext.txt"):
        resolve_backend("torchtext")


@pytest.mark.torchtext
def test_both_backends_agree_on_random_text() -> None:
    pytest.importorskip("torchtext", reason="torchtext is not installed", exc_type=ImportError)
    ours, theirs = resolve_backend("builtin"), resolve_backend("torchtext")
    assert resolve_backend("auto").name == "torchtext"
    draw = random.Random(0)
    pieces = [*"abÉßİ'\".,()!?;:<>/-\\ \t\n\x1c\x85\xa0\u2028", "<br />", '<br" />', "<unk>", "<pad>", "THE", "σς"]
    texts = ["".join(draw.choices(pieces, k=draw.randrange(60))) for _ in range(2000)]
    documents = [ours.tokenize(text) for text in texts]
    assert documents == [theirs.tokenize(text) for text in texts]
    for max_tokens in (None, 3, 50, 500):
        for min_freq in (1, 4):
            mine = ours.build_vocabulary(documents, max_tokens=max_tokens, min_freq=min_freq)
            other = theirs.build_vocabulary(documents, max_tokens=max_tokens, min_freq=min_freq)
            assert mine.get_itos() == other.get_itos()
            assert [mine(document) for document in documents] == [other(document) for document in documents]
