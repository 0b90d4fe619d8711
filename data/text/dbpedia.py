"""DBpedia: the first lines of encyclopedia articles in 14 classes."""

from __future__ import annotations

from pathlib import Path

from ..resource import archive
from .class_csv import FILES, load_class_csv
from .source import Source

CLASSES = [
    *("Company", "EducationalInstitution", "Artist", "Athlete", "OfficeHolder", "MeanOfTransportation", "Building"),
    *("NaturalPlace", "Village", "Animal", "Plant", "Album", "Film", "WrittenWork"),
]

RESOURCE = archive(
    "dbpedia",
    "dbpedia_csv",
    "dbpedia_csv.tar.gz",
    "https://drive.usercontent.google.com/download?id=0Bz8a_Dbh9QhbQ2Vic1kxMmZZQ1k&export=download&confirm=t",
    "dca7b1ae12b1091090db52aa7ec5ca64",
    markers=FILES,
)


def load(root: Path) -> Source:
    """Find DBpedia under `root`, or download it."""
    return load_class_csv(root, RESOURCE, CLASSES)
