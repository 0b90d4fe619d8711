"""AG News: titles and first sentences of news articles in four classes."""

from __future__ import annotations

from pathlib import Path

from ..resource import RemoteFile, Resource
from .class_csv import FILES, load_class_csv
from .source import Source

CLASSES = ["World", "Sports", "Business", "Sci/Tech"]

_ADDRESS = "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv"

RESOURCE = Resource(
    "agnews",
    "ag_news_csv",
    (
        RemoteFile("ag_news_csv/train.csv", f"{_ADDRESS}/train.csv", "b1a00f826fdfbd249f79597b59e1dc12"),
        RemoteFile("ag_news_csv/test.csv", f"{_ADDRESS}/test.csv", "d52ea96a97a2d943681189a97654912d"),
    ),
    markers=FILES,
    archives=("ag-news-classification-dataset",),  # as Kaggle's command line calls it
)


def load(root: Path) -> Source:
    """Find AG News under `root`, or download it."""
    return load_class_csv(root, RESOURCE, CLASSES)
