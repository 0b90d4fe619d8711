"""Texts outside a data set become what its own documents are. CPU, no network."""

from __future__ import annotations

from pathlib import Path

import torch

from data import entry, load_text
from data.registry import resolve
from data.text.unseen import Texts


def test_the_documents_of_a_data_set_are_read_as_it_reads_them(datasets: Path) -> None:
    data = load_text("agnews", root=datasets, max_len=9, min_len=1, vocab_size=40, val_fraction=0.1, seed=0)
    texts = Texts(backend="builtin", max_len=9, vocabulary=tuple(data.vocabulary))
    source = resolve(entry("agnews", "text").load, "agnews")(datasets)
    documents = [document for document, _ in source.read().test]
    tokens, lengths = data.test.inputs
    found, counts = texts.read(documents)
    assert (tokens == 1).any()  # words outside the vocabulary
    assert torch.equal(found, tokens)
    assert torch.equal(counts, lengths)


def test_a_text_without_words_is_one_unknown_word() -> None:
    texts = Texts(backend="builtin", max_len=3, vocabulary=("<pad>", "<unk>", "word"))
    tokens, lengths = texts.read(["", "Word, <pad> word word"])
    assert tokens.tolist() == [[1, 0, 0], [2, 1, 1]]
    assert lengths.tolist() == [1, 3]
    assert texts.read([""])[0].tolist() == [[1, 0, 0]]
