"""A data root with every data set in its official layout, small enough to train on in a second."""

from __future__ import annotations

import csv
import gzip
import random
import struct
from pathlib import Path

import numpy as np
from PIL import Image

WORDS = ("market", "match", "court", "chip", "river", "film", "music", "plant")


def build(root: Path) -> Path:
    """Write all of it into `root` and return `root`."""
    draw = random.Random(0)
    _tiny_imagenet(root / "tiny-imagenet-200")
    _fashion(root)
    _class_csv(root / "ag_news_csv", 4, draw)
    _class_csv(root / "dbpedia_csv", 8, draw)
    _imdb(root / "IMDB_Dataset.csv", draw)
    _vectors(root / "glove.6B.50d.txt")
    return root


def _tiny_imagenet(folder: Path) -> None:
    """Three classes, each of its own color, with noise."""
    noise = np.random.default_rng(0)
    wnids = ["n01", "n02", "n03"]
    annotations = []
    for number, wnid in enumerate(wnids):
        for split, count in ((f"train/{wnid}/images", 16), ("val/images", 4)):
            (folder / split).mkdir(parents=True, exist_ok=True)
            for image in range(count):
                pixels = noise.integers(0, 60, (64, 64, 3))
                pixels[..., number] += 150
                name = f"{wnid}_{image}.JPEG" if "train" in split else f"val_{number}_{image}.JPEG"
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name)
                if "val" in split:
                    annotations.append(f"{name}\t{wnid}\t0\t0\t62\t62\n")
    (folder / "val/val_annotations.txt").write_text("".join(annotations))
    (folder / "wnids.txt").write_text("\n".join(wnids) + "\n")
    (folder / "words.txt").write_text("n01\tgoldfish\nn02\tcat\nn03\tbus\n")


def _fashion(folder: Path) -> None:
    """Ten classes that differ in the position of a bright column; gzipped files in the root itself."""
    noise = np.random.default_rng(1)
    for part, count in (("train", 60), ("t10k", 20)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = noise.integers(0, 40, (count, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[:, 2 * label + 2 : 2 * label + 5] = 220
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape)
            with gzip.open(folder / f"{part}-{kind}-ubyte.gz", "wb") as file:
                file.write(header + array.tobytes())


def _document(label: int, draw: random.Random) -> str:
    return " ".join(WORDS[label] if draw.random() < 0.5 else draw.choice(WORDS) for _ in range(draw.randint(5, 12)))


def _class_csv(folder: Path, classes: int, draw: random.Random) -> None:
    folder.mkdir()
    for name, count in (("train", 12 * classes), ("test", 4 * classes)):
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL)
            writer.writerows([i % classes + 1, f"title {i}", _document(i % classes, draw)] for i in range(count))


def _imdb(path: Path, draw: random.Random) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "sentiment"])
        for i in range(80):
            writer.writerow([f"{_document(i % 2, draw)}<br /><br />number {i}", ("negative", "positive")[i % 2]])


def _vectors(path: Path) -> None:
    numbers = np.random.default_rng(2).normal(size=(len(WORDS), 50))
    lines = (
        f"{word} {' '.join(f'{number:.5f}' for number in row)}\n" for word, row in zip(WORDS, numbers, strict=True)
    )
    path.write_text("".join(lines))
