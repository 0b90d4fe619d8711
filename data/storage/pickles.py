"""Read a pickle of plain data without running anything.

A pickle can run any code when it is loaded, and a data file can come from anywhere. So pickles are read by an
unpickler that knows nothing but containers, numbers, text and arrays of bytes or numbers. It does not even call
numpy's own reconstruction, only the stand-ins below.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .folders import kind, unreadable

ALLOWED_DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8")


def load_restricted(path: Path) -> dict[str, Any]:
    """Return the pickled dict at `path` with str keys; `DataError` if it holds anything but plain data."""
    kind(path)  # refuses a pipe, from which reading might never end
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="bytes").load()
        if not isinstance(content, dict):
            raise pickle.UnpicklingError("it holds no dict")
        return {
            key.decode("latin1") if isinstance(key, bytes) else str(key): _build(value)
            for key, value in content.items()
        }
    except OSError as error:
        raise unreadable(path, error) from error
    except Exception as error:
        # A hostile or damaged pickle can make the unpickler raise almost any exception.
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: is not a pickle of plain data ({reason}); fetch it again") from error


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


def _scalar(dtype: Any, raw: Any) -> Any:
    """Stand-in for what makes a number of numpy's, as in `list(labels)` of an array."""
    array = _Array()
    array.state = (raw, dtype, (), "C")
    return array.array().item()


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
        **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
        **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    }

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """Return the stand-in for a global name; refuse every other name."""
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no data file needs")
        return self.allowed[module, name]
