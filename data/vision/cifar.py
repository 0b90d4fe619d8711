"""CIFAR-10 and CIFAR-100, in both official layouts: Python pickles and plain binary.

A pickle can run any code when it is loaded, and a data file comes from anywhere. So these are read by an
unpickler that knows nothing but containers, numbers, text and arrays of bytes or integers; not even numpy's
own reconstruction is called, only the stand-ins below.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError

PIXELS = 3 * 32 * 32
ADMITTED_DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")

Found = tuple[list[str], tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


def read_cifar(folder: Path) -> Found:
    """Return (classes, train, test) from an official folder, each set as (uint8 (rows, 3, 32, 32), int64 (rows,)).

    The folder's name says which data set and layout it is. CIFAR-10 may have any of its five training files;
    CIFAR-100 has its 100 fine labels. `DataError` names the file that is missing or does not hold what it should.
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
    return classes, _joined(parts), _read_pickle(_present(folder, [test])[0], labels)


def _present(folder: Path, names: list[str]) -> list[Path]:
    paths = [folder / name for name in names if (folder / name).is_file()]
    if not paths:
        raise DataError(f"{folder / names[0]}: is missing; unpack the official archive again")
    return paths


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts])


def _read_pickle(path: Path, key: str) -> tuple[Tensor, Tensor]:
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


def _read_binary(folder: Path, fine: bool) -> Found:
    train, test, names, width = (
        (["train.bin"], "test.bin", "fine_label_names.txt", 2)
        if fine
        else ([f"data_batch_{i}.bin" for i in range(1, 6)], "test_batch.bin", "batches.meta.txt", 1)
    )

    def read(path: Path) -> tuple[Tensor, Tensor]:
        rows = np.fromfile(path, np.uint8)
        if rows.size % (width + PIXELS):
            raise DataError(f"{path}: is not rows of {width + PIXELS} bytes; fetch it again")
        table = torch.from_numpy(rows.reshape(-1, width + PIXELS))
        # Of the two labels of CIFAR-100 the second is the fine one.
        return table[:, width:].reshape(-1, 3, 32, 32), table[:, width - 1].long()

    classes = [str(number) for number in range(100 if fine else 10)]
    if (folder / names).is_file():
        classes = (folder / names).read_text("latin1").split()
    return classes, _joined([read(path) for path in _present(folder, train)]), read(_present(folder, [test])[0])


def load_restricted(path: Path) -> dict[str, Any]:
    """Load the pickled dict at `path`, its keys as str; `DataError` if it holds anything but plain data."""
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="bytes").load()
        if not isinstance(content, dict):
            raise pickle.UnpicklingError("it holds no dict")
        return {
            key.decode("latin1") if isinstance(key, bytes) else str(key): _built(value)
            for key, value in content.items()
        }
    except Exception as error:
        # A hostile or damaged pickle can make the machine inside fail in almost any way; none is let through.
        raise DataError(f"{path}: is not a pickle of plain data ({error}); fetch it again") from error


def _built(value: Any) -> Any:
    return value.array() if isinstance(value, _Array) else value


class _Dtype:
    """Stands in for `numpy.dtype`: keeps a name and a byte order, both checked."""

    def __init__(self, name: bytes | str, *_: object) -> None:
        self.name = name.decode("latin1") if isinstance(name, bytes) else name
        if self.name not in ADMITTED_DTYPES:
            raise pickle.UnpicklingError(f"an array of {self.name!r} is not admitted")
        self.order: Any = "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order: Any = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order not in ("|", "<", ">", "="):
            raise pickle.UnpicklingError("a byte order is not admitted")
        self.order = order


class _Array:
    """Stands in for `numpy.ndarray`: keeps what the pickle states until `array` checks and builds it."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        self.state = (raw, dtype, shape, "F" if fortran else "C")

    def array(self) -> np.ndarray:
        """Return the array; `UnpicklingError` if the bytes are not those of an array of that shape."""
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
    """Stand in for the call by which Python 3 writes bytes in the old protocols."""
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("a codec other than latin1 is not admitted")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Resolves the few names that a pickled array needs, and to the stand-ins above."""

    admitted: dict[tuple[str, str], Callable[..., Any]] = {  # noqa: RUF012
        ("numpy", "dtype"): _Dtype,
        ("numpy", "ndarray"): _Array,
        ("_codecs", "encode"): _encode,
        **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
        **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    }

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """Return the stand-in for a global name; refuse every other name."""
        if (module, name) not in self.admitted:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no data file needs")
        return self.admitted[module, name]
