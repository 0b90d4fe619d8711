"""Data roots with one small text data set each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.text.samples import WORDS, row, write_csv


@pytest.fixture
def agnews(tmp_path: Path) -> Path:
    train = "".join(row(i % 4 + 1, f"Title {WORDS[i]}", f"Body of {WORDS[i]}, here.") for i in range(10))
    test = row(3, "A title", "unseen body") + row(4, "", "")
    write_csv(tmp_path / "ag_news_csv", train, test)
    return tmp_path


@pytest.fixture
def imdb(tmp_path: Path) -> Path:
    lines = [f'"Review {i} is<br /><br />not ""bad"".",{("negative", "positive")[i % 2]}\n' for i in range(20)]
    (tmp_path / "IMDB_Dataset.csv").write_text("review,sentiment\n" + "".join(lines) + lines[3] + lines[4])
    return tmp_path
