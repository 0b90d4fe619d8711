"""CIFAR-10 and CIFAR-100, in both official layouts: Python pickles and plain binary.

A pickle can run any code when it is loaded, and a data file can come from anywhere. So these pickles are read by an
unpickler that knows nothing but containers, numbers, text and arrays of bytes or integers. It does not even call
numpy's own reconstruction, only the stand-ins below.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..download import fetch
from ..errors import DataError
from ..resource import Resource, archive
from .images import Images, Labeled

_ADDRESS = "https://www.cs.toronto.edu/~kriz"

CIFAR10 = archive(
    "cifar10",
    "cifar-10-batches-py",
    "cifar-10-python.tar.gz",
    f"{_ADDRESS}/cifar-10-python.tar.gz",
    "c58f30108f718f92721af3b95e74349a",
    markers=("data_batch_*", "test_batch*"),
    distinctive=True,
)
CIFAR100 = archive(
    "cifar100",
    "cifar-100-python",
    "cifar-100-python.tar.gz",
    f"{_ADDRESS}/cifar-100-python.tar.gz",
    "eb9058c3a382ffc7106e4002c42a8d85",
    markers=("train", "test", "meta"),
    distinctive=True,
)

PIXELS = 3 * 32 * 32
ALLOWED_DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")


def load_cifar10(root: Path, _image_size: int) -> Images:
    """Read CIFAR-10: the binary layout where its folder is there, else the pickles, which are downloaded if missing."""
    return _load(root, "cifar-10-batches-bin", CIFAR10)


def load_cifar100(root: Path, _image_size: int) -> Images:
    """Read CIFAR-100 in the same way."""
    return _load(root, "cifar-100-binary", CIFAR100)


def _load(root: Path, binary: str, resource: Resource) -> Images:
    folder = root / binary
    return read_cifar(folder if folder.is_dir() else fetch(resource, root))


def read_cifar(folder: Path) -> Images:
    """Read an official folder, whose name tells the data set and the layout; images are uint8 (rows, 3, 32, 32).

    CIFAR-10 may have any of its five training files. CIFAR-100 gets its 100 fine labels. `DataError` names the file
    that is missing or does not hold what it should.
    """
    fine = folder.name.startswith("cifar-100")
    if folder.name.endswith(("bin", "binary")):
        return _read_binary(folder, fine)
    train, test, meta, names, labels = (
        (["train"], "test", "meta", "fine_label_names", "fine_labels")
        if fine
        else ([f"data_batch_{i}" for i in range(1, 6)], "test_batch", "batches.meta", "label_names", "labels")
    )
    classes = [str(number) for number in range(100 if fine else 10)]
    if (folder / meta).is_file():
        entry = load_restricted(folder / meta).get(names)
        if not isinstance(entry, list) or not entry:
            raise DataError(f"{folder / meta}: has no list {names!r}; fetch it again")
        classes = [name.decode("latin1") if isinstance(name, bytes) else str(name) for name in entry]
    parts = [_read_pickle(path, labels) for path in _present(folder, train)]
    return Images(classes, _join(parts), _read_pickle(_present(folder, [test])[0], labels))


def _present(folder: Path, names: list[str]) -> list[Path]:
    paths = [folder / name for name in names if (folder / name).is_file()]
    if not paths:
        raise DataError(f"{folder / names[0]}: is missing; unpack the official archive again")
    return paths


def _join(parts: list[Labeled]) -> Labeled:
    return torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts])


def _read_pickle(path: Path, key: str) -> Labeled:
    content = load_restricted(path)
    images = content.get("data")
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.size % PIXELS:
        raise DataError(f"{path}: 'data' is not rows of {PIXELS} bytes; fetch it again")
    try:
        labels = torch.tensor(np.asarray(content.get(key)).astype(np.int64, casting="safe"))
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {key!r} is not a list of whole numbers; fetch it again") from error
    if labels.shape != (images.size // PIXELS,):
        raise DataError(f"{path}: {images.size // PIXELS} images but {labels.numel()} labels; fetch it again")
    return torch.tensor(images.reshape(-1, 3, 32, 32)), labels


def _read_binary(folder: Path, fine: bool) -> Images:
    train, test, names, width = (
        (["train.bin"], "test.bin", "fine_label_names.txt", 2)
        if fine
        else ([f"data_batch_{i}.bin" for i in range(1, 6)], "test_batch.bin", "batches.meta.txt", 1)
    )

    def read(path: Path) -> Labeled:
        rows = np.fromfile(path, np.uint8)
        if rows.size % (width + PIXELS):
            raise DataError(f"{path}: is not rows of {width + PIXELS} bytes; fetch it again")
        table = torch.from_numpy(rows.reshape(-1, width + PIXELS))
        # CIFAR-100 has two labels per image, and the second is the fine one.
        return table[:, width:].reshape(-1, 3, 32, 32), table[:, width - 1].long()

    classes = [str(number) for number in range(100 if fine else 10)]
    if (folder / names).is_file():
        classes = (folder / names).read_text("latin1").split()
    return Images(classes, _join([read(path) for path in _present(folder, train)]), read(_present(folder, [test])[0]))


def load_restricted(path: Path) -> dict[str, Any]:
    """Return the pickled dict at `path` with str keys; `DataError` if it holds anything but plain data."""
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="bytes").load()
        if not isinstance(content, dict):
            raise pickle.UnpicklingError("it holds no dict")
        return {
            key.decode("latin1") if isinstance(key, bytes) else str(key): _build(value)
            for key, value in content.items()
        }
    except Exception as error:
        # A hostile or damaged pickle can make the unpickler raise almost any exception.
        raise DataError(f"{path}: is not a pickle of plain data ({error}); fetch it again") from error


def _build(value: Any) -> Any:
    return value.array() if isinstance(value, _Array) else value


class _Dtype:
    """Stand-in for `numpy.dtype`: keeps a name and a byte order, both checked."""

    def __init__(self, name: bytes | str, *_: object) -> None:
        self.name = name.decode("latin1") if isinstance(name, bytes) else name
        if self.name not in ALLOWED_DTYPES:
            raise pickle.UnpicklingError(f"an array of type {self.name!r} is not allowed")
        self.order: Any = "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order: Any = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order not in ("|", "<", ">", "="):
            raise pickle.UnpicklingError("this byte order is not allowed")
        self.order = order


class _Array:
    """Stand-in for `numpy.ndarray`: keeps what the pickle says until `array` checks and builds it."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        self.state = (raw, dtype, shape, "F" if fortran else "C")

    def array(self) -> np.ndarray:
        """Return the array; `UnpicklingError` if the number of bytes does not fit its shape and type."""
        if self.state is None:
            raise pickle.UnpicklingError("an array without content")
        raw, dtype, shape, order = self.state
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("an array without a type")
        kind = np.dtype(dtype.name).newbyteorder(dtype.order)
        values = np.frombuffer(raw, kind)
        if values.size != prod(shape):
            raise pickle.UnpicklingError(f"{values.size} values for an array of shape {shape}")
        native: np.ndarray = values.reshape(shape, order=order).astype(kind.newbyteorder("="))
        return native


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.state = (raw, dtype, shape, order)
    return array


def _encode(text: str, encoding: str) -> bytes:
    """Stand-in for `_codecs.encode`, which is how Python 3 writes bytes in the old protocols."""
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("a codec other than latin1 is not allowed")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Resolves only the few names that a pickled array needs, to the stand-ins above."""

    allowed: dict[tuple[str, str], Callable[..., Any]] = {  # noqa: RUF012
        ("numpy", "dtype"): _Dtype,
        ("numpy", "ndarray"): _Array,
        ("_codecs", "encode"): _encode,
        **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
        **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    }

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """Return the stand-in for a global name; refuse every other name."""
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no data file needs")
        return self.allowed[module, name]
