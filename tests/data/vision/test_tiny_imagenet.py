"""tinyImageNet in its official layout, on twelve small images: right, rearranged and spoiled. No network, no GPU."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data import DataError, Dataset, load_vision
from data.vision import picture_cache

COLORS = {"n01": (250, 10, 10), "n02": (10, 250, 10), "n03": (10, 10, 250)}
GRAY = (120, 120, 120)


def load(root: Path, image_size: int | None = None) -> Dataset:
    return load_vision("TINYIMAGENET", root=root, image_size=image_size, val_fraction=0.25, seed=0)


def paint(path: Path, color: tuple[int, int, int], size: int = 64) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), color).save(path, "JPEG")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Three classes of four images, a gray one among them; all of val in one folder, not sorted by class."""
    folder = tmp_path / "tiny-imagenet-200"
    for wnid, color in COLORS.items():
        for number in range(4):
            paint(folder / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", color)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text("n01_0.JPEG\t0\t0\t1\t1\n")
    Image.new("L", (64, 64), GRAY[0]).save(folder / "train/n02/images/n02_3.JPEG", "JPEG")
    lines = []
    for number, wnid in enumerate(["n03", "n01", "n02", "n01"]):
        paint(folder / "val/images" / f"val_{number}.JPEG", COLORS[wnid])
        lines.append(f"val_{number}.JPEG\t{wnid}\t0\t0\t62\t62\n")
    (folder / "val/val_annotations.txt").write_text("".join(reversed(lines)))
    (folder / "wnids.txt").write_text("n02\nn01\nn03\n")
    (folder / "words.txt").write_text("n01\tgoldfish, Carassius auratus\nn02\tEgyptian cat\nn99\tentity\n")
    return tmp_path


def leftovers(root: Path) -> list[str]:
    """What is in the cache beside arrays that are complete, with their facts."""
    found = {path.name for path in (root / ".cache").glob("*")} - {".lock"}
    whole = {name for name in found if name.endswith(".npy") and name.replace(".npy", ".json") in found}
    return sorted(found - whole - {name.replace(".npy", ".json") for name in whole})


def near(image: torch.Tensor, color: tuple[int, int, int]) -> bool:
    return bool(((image.float().mean((1, 2)) - torch.tensor(color).float()).abs() < 4).all())


def test_tiny_imagenet_labels_are_those_of_the_annotations(tiny: Path) -> None:
    loaded = load(tiny)
    assert loaded.name == "tinyImageNet"
    assert loaded.classes == ["Egyptian cat", "goldfish", "n03"]
    images = loaded.test.inputs
    assert isinstance(images, torch.Tensor)
    assert images.dtype == torch.uint8
    assert images.shape == (4, 3, 32, 32)
    wnids = ["n02", "n01", "n03"]
    assert sorted(loaded.test.labels.tolist()) == [0, 1, 1, 2]
    for image, label in zip(images, loaded.test.labels.tolist(), strict=True):
        assert near(image, COLORS[wnids[label]])


def test_tiny_imagenet_train_images_go_with_their_folder_and_gray_becomes_rgb(tiny: Path) -> None:
    loaded = load(tiny)
    images, labels = loaded.train.rows(torch.arange(len(loaded.train)))
    held, held_labels = loaded.val.rows(torch.arange(len(loaded.val)))
    assert len(labels) == 9
    assert len(held_labels) == 3
    grays = 0
    for image, label in zip(torch.cat([images, held]), [*labels.tolist(), *held_labels.tolist()], strict=True):  # type: ignore[list-item]
        if near(image, GRAY):
            grays += 1
            assert label == 0
        else:
            assert near(image, COLORS[["n02", "n01", "n03"][label]])
    assert grays == 1


def test_tiny_imagenet_is_decoded_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(tiny)
    assert first.notes == []
    assert leftovers(tiny) == []
    monkeypatch.setattr(picture_cache, "read_picture", lambda *_: pytest.fail("decoded again"))
    second = load(tiny)
    assert torch.equal(first.train.inputs, second.train.inputs)  # type: ignore[arg-type]
    assert torch.equal(first.test.inputs, second.test.inputs)  # type: ignore[arg-type]


def test_tiny_imagenet_decodes_again_when_a_file_or_the_size_changes(tiny: Path) -> None:
    before = load(tiny).test.inputs
    image = tiny / "tiny-imagenet-200/val/images/val_0.JPEG"
    paint(image, (250, 250, 250))
    os.utime(image, ns=(0, 0))
    after = load(tiny).test.inputs
    assert not torch.equal(before, after)  # type: ignore[arg-type]
    assert load(tiny, image_size=64).test.inputs.shape == (4, 3, 64, 64)  # type: ignore[union-attr]


def test_a_damaged_cache_is_written_again(tiny: Path) -> None:
    before = load(tiny).test.inputs.clone()  # type: ignore[union-attr]
    for file in (tiny / ".cache").glob("*.npy"):
        file.write_bytes(file.read_bytes()[:200])
        (tiny / ".cache" / f".{file.name}.123-abc.tmp").write_bytes(b"of a run that was killed")
    assert torch.equal(load(tiny).test.inputs, before)  # type: ignore[arg-type]
    assert leftovers(tiny) == []


def test_the_cache_is_never_written_through_the_map(tiny: Path) -> None:
    inputs = load(tiny).test.inputs
    assert isinstance(inputs, torch.Tensor)
    inputs.zero_()
    assert int(load(tiny).test.inputs.max()) > 0  # type: ignore[union-attr]


def test_without_a_cache_images_are_held_in_memory_and_a_note_says_so(tiny: Path) -> None:
    (tiny / ".cache").write_text("a file where the folder should be")
    loaded = load(tiny)
    assert len(loaded.train.labels) == 12
    assert len(loaded.notes) == 1
    assert "every run decodes the images again" in loaded.notes[0]


@pytest.mark.parametrize("inner", ["images", "."])
@pytest.mark.parametrize("keeps_annotations", [False, True])
def test_tiny_imagenet_takes_a_val_set_sorted_into_class_folders(
    tiny: Path, inner: str, keeps_annotations: bool
) -> None:
    val = tiny / "tiny-imagenet-200/val"
    for line in (val / "val_annotations.txt").read_text().splitlines():
        name, wnid = line.split("\t")[:2]
        (val / wnid / inner).mkdir(parents=True, exist_ok=True)
        (val / "images" / name).rename(val / wnid / inner / name)
    (val / "images").rmdir()
    if not keeps_annotations:
        (val / "val_annotations.txt").unlink()
    loaded = load(tiny)
    assert loaded.test.labels.tolist() == [0, 1, 1, 2]
    assert near(loaded.test.inputs[3], COLORS["n03"])


@pytest.mark.parametrize("listed", [True, False])
def test_a_class_that_wnids_does_not_list_is_left_out_with_a_note(tiny: Path, listed: bool) -> None:
    folder = tiny / "tiny-imagenet-200"
    (folder / "wnids.txt").write_text("n02\nn01\n")
    if not listed:  # then the folders of train are the classes
        (folder / "wnids.txt").unlink()
        shutil.rmtree(folder / "train/n03")
    loaded = load(tiny)
    assert len(loaded.classes) == 2
    assert len(loaded.train.labels) == 8
    assert sorted(loaded.test.labels.tolist()) == ([0, 1, 1] if listed else [0, 0, 1])
    left = (
        f"tinyImageNet: 1 picture of {folder / 'val/val_annotations.txt'} left out, the first in line 4: "
        f"classes such as n03 are not listed in {'wnids.txt' if listed else 'train'}"
    )
    assert loaded.notes[1:] == [left]
    if listed:
        assert loaded.notes[0] == f"tinyImageNet: 1 folder in {folder / 'train'} left out: not listed in wnids.txt"
        assert colors_fit(loaded)


@pytest.mark.parametrize("folder", ["images/", "val\\images\\", "/home/me/tiny-imagenet-200/val/images/", " "])
def test_a_folder_or_space_before_the_names_in_the_annotations_does_not_matter(tiny: Path, folder: str) -> None:
    annotations = tiny / "tiny-imagenet-200/val/val_annotations.txt"
    annotations.write_text(annotations.read_text().replace("val_", f"{folder}val_"))
    loaded = load(tiny)
    assert loaded.test.labels.tolist() == [1, 0, 1, 2]
    assert colors_fit(loaded)


def test_the_cache_notices_other_files_with_the_same_names_sizes_and_times(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [tiny / f"tiny-imagenet-200/train/{wnid}/images/same.bmp" for wnid in ("n01", "n02")]
    for path in pictures:
        Image.new("RGB", (8, 8), COLORS[path.parts[-3]]).save(path)
        os.utime(path, ns=(0, 0))  # as unpackers do it
    before = load(tiny).train.inputs.clone()  # type: ignore[union-attr]
    contents = [path.read_bytes() for path in pictures]
    for path, content in zip(pictures, reversed(contents), strict=True):
        path.write_bytes(content)
        os.utime(path, ns=(0, 0))
    after = load(tiny).train.inputs.clone()  # type: ignore[union-attr]
    assert int((before != after).flatten(1).any(1).sum()) == 2
    monkeypatch.setattr(picture_cache, "read_picture", lambda *_: pytest.fail("decoded again"))
    for path in pictures:
        path.chmod(0o400)  # touched, and still the same
    assert torch.equal(load(tiny).train.inputs, after)  # type: ignore[arg-type]
    monkeypatch.setattr(picture_cache, "content_key", lambda *_: pytest.fail("compared again"))
    assert torch.equal(load(tiny).train.inputs, after)  # type: ignore[arg-type]


def truncate(folder: Path) -> None:
    image = folder / "train/n01/images/n01_2.JPEG"
    image.write_bytes(image.read_bytes()[:300])


def no_image(folder: Path) -> None:
    (folder / "train/n01/images/n01_2.JPEG").write_text("<html>404</html>")


def no_bytes(folder: Path) -> None:
    (folder / "val/images/val_2.JPEG").write_bytes(b"")


def link_to_nowhere(folder: Path) -> None:
    image = folder / "train/n01/images/n01_2.JPEG"
    image.unlink()
    image.symlink_to("nowhere.JPEG")


def bomb(folder: Path) -> None:
    """An image whose header says that it has 10^10 pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (folder / "train/n01/images/n01_2.JPEG").write_bytes(content)


def folder_with_the_name_of_a_picture(folder: Path) -> None:
    (folder / "train/n01/images/a.png").mkdir()


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "train/n01/images/a.png")


def empty_class(folder: Path) -> None:
    for image in (folder / "train/n03/images").iterdir():
        image.unlink()


def unknown_classes(folder: Path) -> None:
    annotations = folder / "val/val_annotations.txt"
    annotations.write_text(annotations.read_text().replace("\tn", "\tx"))


def missing_image(folder: Path) -> None:
    (folder / "val/images/val_3.JPEG").unlink()


def missing_annotation(folder: Path) -> None:
    paint(folder / "val/images/val_8.JPEG", GRAY)


def double_annotation(folder: Path) -> None:
    with (folder / "val/val_annotations.txt").open("a") as file:
        file.write("val_2.JPEG\tn02\n")


def no_annotations(folder: Path) -> None:
    (folder / "val/val_annotations.txt").unlink()


def empty_wnids(folder: Path) -> None:
    (folder / "wnids.txt").write_text("\n\n")


def double_wnid(folder: Path) -> None:
    (folder / "wnids.txt").write_text("n01\nn02\nn03\nn02\n")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncate, r"n01_2\.JPEG: damaged image \(Truncated File Read"),
        (no_image, r"n01_2\.JPEG: damaged image \(not a picture of a known format\)"),
        (no_bytes, r"val_2\.JPEG: damaged image"),
        (link_to_nowhere, r"n01_2\.JPEG: cannot be read \(No such file"),
        (bomb, r"n01_2\.JPEG: damaged image \(Image size \(10000000000 pixels\) exceeds limit"),
        (folder_with_the_name_of_a_picture, r"a\.png: has the name of a picture, but is no file"),
        pytest.param(pipe, r"a\.png: has the name of", marks=pytest.mark.skipif(os.name == "nt", reason="no pipes")),
        (empty_class, r"train/n03: holds no images"),
        (unknown_classes, r"val_annotations\.txt, line 1: 'x01' is no class in wnids\.txt"),
        (missing_image, r"val_annotations\.txt, line 1: there is no image .*val_3\.JPEG"),
        (missing_annotation, r"val_8\.JPEG: val_annotations\.txt has no line for it"),
        (double_annotation, r"line 5: val_2\.JPEG is annotated twice"),
        (no_annotations, r"val: has neither val_annotations\.txt"),
        (empty_wnids, r"wnids\.txt: lists no class"),
        (double_wnid, r"wnids\.txt, line 4: n02 is listed twice"),
    ],
)
def test_faults_of_tiny_imagenet_are_named(tiny: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(tiny / "tiny-imagenet-200")
    with pytest.raises(DataError, match=message) as caught:
        load(tiny)
    assert "\n" not in str(caught.value)
    assert leftovers(tiny) == []


def annotated(tiny: Path) -> list[tuple[str, str]]:
    lines = (tiny / "tiny-imagenet-200/val/val_annotations.txt").read_text().splitlines()
    return [(name, wnid) for name, wnid in (line.split("\t")[:2] for line in lines)]


def sort_val(tiny: Path, where: str, inner: str = ".", *, first: int | None = None, copy: bool = False) -> None:
    """Do what the common scripts do: move the val images into a folder per class, and leave everything else."""
    val = tiny / "tiny-imagenet-200/val"
    for name, wnid in annotated(tiny)[:first]:
        (val / where / wnid / inner).mkdir(parents=True, exist_ok=True)
        (shutil.copy if copy else shutil.move)(str(val / "images" / name), str(val / where / wnid / inner / name))


def colors_fit(loaded: Dataset) -> bool:
    wnids = ["n02", "n01", "n03"]
    images = loaded.test.inputs
    assert isinstance(images, torch.Tensor)
    return all(near(image, COLORS[wnids[label]]) for image, label in zip(images, loaded.test.labels, strict=True))


@pytest.mark.parametrize(("where", "inner"), [("images", "."), ("images", "images"), (".", "."), (".", "images")])
def test_a_val_set_that_a_script_has_sorted_is_read_whatever_it_leaves(tiny: Path, where: str, inner: str) -> None:
    sort_val(tiny, where, inner)  # leaves val_annotations.txt, and an empty images/
    loaded = load(tiny)
    assert sorted(loaded.test.labels.tolist()) == [0, 1, 1, 2]
    assert colors_fit(loaded)
    place = tiny / "tiny-imagenet-200/val" / where
    assert loaded.notes == [
        f"tinyImageNet: the val set is read from class folders in {place}, not from images/ and val_annotations.txt"
    ]


def test_a_script_that_was_interrupted_or_copied_leaves_all_that_is_needed(tiny: Path) -> None:
    sort_val(tiny, ".", first=2)
    loaded = load(tiny)
    assert colors_fit(loaded)
    assert loaded.notes == ["tinyImageNet: 2 pictures of val read from class folders, the others from images/"]


def test_copies_are_not_read_twice(tiny: Path) -> None:
    sort_val(tiny, ".", copy=True)
    loaded = load(tiny)
    assert len(loaded.test) == 4
    assert loaded.notes == []


def test_two_sorted_sets_or_one_that_contradicts_the_annotations_are_refused(tiny: Path) -> None:
    val = tiny / "tiny-imagenet-200/val"
    sort_val(tiny, ".")
    name, wnid = annotated(tiny)[0]
    other = next(each for each in COLORS if each != wnid)
    (val / wnid / name).rename(val / other / name)
    with pytest.raises(DataError, match=rf"{other}/{name}: .*says that its class is {wnid}"):
        load(tiny)
    paint(val / "images" / wnid / "a.JPEG", COLORS[wnid])
    with pytest.raises(DataError, match=r"val: classes have folders both in it and in .*val/images"):
        load(tiny)


def test_train_images_are_found_beside_an_empty_folder(tiny: Path) -> None:
    before = load(tiny)
    for wnid in COLORS:
        folder = tiny / "tiny-imagenet-200/train" / wnid
        for image in list((folder / "images").iterdir()):
            image.rename(folder / image.name)
    after = load(tiny)
    assert torch.equal(before.train.inputs, after.train.inputs)  # type: ignore[arg-type]
    assert torch.equal(before.train.labels, after.train.labels)
    assert after.notes == ["tinyImageNet: 12 train pictures read from beside the folder images/ of a class"]


def test_without_wnids_the_classes_are_the_folders_and_a_note_says_so(tiny: Path) -> None:
    (tiny / "tiny-imagenet-200/wnids.txt").unlink()
    loaded = load(tiny)
    assert loaded.classes == ["goldfish", "Egyptian cat", "n03"]
    assert "the classes are the 3 folders of train, numbered by name; that is not the official order" in loaded.notes[0]


@pytest.mark.parametrize("how", ["deeper", "own folder", "renamed", "zip", "tgz"])
def test_it_is_found_where_people_leave_it(tiny: Path, how: str) -> None:
    folder, root = tiny / "tiny-imagenet-200", tiny
    if how == "deeper":
        folder.rename(tiny / "x")
        folder.mkdir()
        (tiny / "x").rename(folder / folder.name)
    elif how == "own folder":
        root = folder
    elif how == "renamed":
        root = folder.rename(tiny / "meine Bilder é")
    else:
        made = shutil.make_archive(str(tiny / "x"), {"zip": "zip", "tgz": "gztar"}[how], tiny, folder.name)
        shutil.move(made, tiny / f"{folder.name}.{how}")
        shutil.rmtree(folder)
    loaded = load(root)
    assert len(loaded.train.labels) == 12
    assert [note.split(" ")[1:3] for note in loaded.notes] == ([] if how in ("zip", "tgz") else [["read", "from"]])


def test_lists_may_have_byte_order_marks_and_the_line_ends_of_windows(tiny: Path) -> None:
    before = load(tiny)
    for name in ("wnids.txt", "words.txt", "val/val_annotations.txt"):
        file = tiny / "tiny-imagenet-200" / name
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    after = load(tiny)
    assert (after.classes, after.notes) == (before.classes, [])
    assert after.test.labels.tolist() == before.test.labels.tolist()


def test_what_is_no_picture_is_counted_and_pictures_of_any_ending_are_read(tiny: Path) -> None:
    train = tiny / "tiny-imagenet-200/train"
    for ending in (".bmp", ".webp", ".JPG", ".gif", ".tif"):
        Image.new("RGB", (64, 64), COLORS["n01"]).save(train / "n01/images" / f"more{ending}")
    Image.fromarray(np.full((64, 64), 120 * 257, np.uint16)).save(train / "n02/images/deep.png")
    for name in ("n01/images/a.heic", "n01/list.csv", "n02/README", "n01/images/.DS_Store", "n02/images/Thumbs.db"):
        (train / name).write_text("x")
    (train / "n03/._n03_0.JPEG").write_text("x")
    paint(train / "loose.JPEG", GRAY)
    expected = [
        f"tinyImageNet: 1 picture in {train} left out: in no class's folder",
        "tinyImageNet: left out of train, because not pictures: 1 .csv, 1 .heic, 1 without an ending",
        "tinyImageNet: 3 files that an operating system or editor left (.DS_Store, ._n03_0.JPEG, Thumbs.db) not read",
        "tinyImageNet: 1 train picture of 16 bits or floating-point numbers scaled to 8 bits",
    ]
    for _ in range(2):  # what was told when the files were decoded is told again from the cache
        loaded = load(tiny)
        assert len(loaded.train.labels) == 12 + 6
        assert loaded.notes == expected
    grays = [near(image, GRAY) for image in loaded.train.inputs]  # type: ignore[union-attr]
    assert sum(grays) == 2


@pytest.mark.parametrize("text", ["404: Not Found", "<!DOCTYPE html>\n<html>\n<title>403</title></html>\n", ""])
@pytest.mark.parametrize("name", ["wnids.txt", "words.txt", "val/val_annotations.txt", "train/n01/images/n01_1.JPEG"])
def test_the_text_of_a_server_is_no_data(tiny: Path, name: str, text: str) -> None:
    (tiny / "tiny-imagenet-200" / name).write_text(text)
    if (name, text) == ("words.txt", ""):
        assert load(tiny).classes == ["n02", "n01", "n03"]
        return
    with pytest.raises(DataError, match=rf"{name}") as caught:
        load(tiny)
    assert "\n" not in str(caught.value)


def test_the_cache_of_another_user_is_read_where_nothing_can_be_written(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(tiny)
    monkeypatch.setattr(picture_cache, "exclusive_lock", lambda _: pytest.fail("the lock is another user's"))
    monkeypatch.setattr(picture_cache, "read_picture", lambda *_: pytest.fail("decoded again"))
    assert load(tiny).notes == []


@pytest.mark.parametrize("where", ["train", "train/n01", "train/n01/images", "val", "val/images"])
def test_folders_without_rights_are_named(tiny: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, whom no permissions bind."""
    closed, listdir = tiny / "tiny-imagenet-200" / where, os.listdir

    def guarded(path: Path) -> list[str]:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", guarded)
    with pytest.raises(DataError, match=rf"{where}: cannot be read \(Permission denied\); check its permissions"):
        load(tiny)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_name_that_is_no_utf_8_is_only_a_name(tiny: Path) -> None:
    images = os.fsencode(tiny / "tiny-imagenet-200/train/n01/images")
    shutil.copy(images + b"/n01_0.JPEG", images + b"/\xff\xfe.JPEG")
    assert len(load(tiny).train.labels) == 13
