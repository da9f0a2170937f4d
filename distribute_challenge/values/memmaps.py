"""`numpy.memmap` by its file: for functions that write their results into one, as joblib's users do."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path
from typing import Any

_Identity = tuple[int, int]  # device and inode


def by_file(array: Any) -> tuple[Any, ...] | None:
    """How to pickle an array as a part of a mapped file. None if it is none, or has no file any more."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(array) not in (numpy.ndarray, numpy.memmap):
        return None
    whole = array
    while not isinstance(whole.base, mmap.mmap):
        whole = whole.base
        if not isinstance(whole, numpy.ndarray):
            return None
    if type(whole) is not numpy.memmap or whole.filename is None or whole.mode == "c":
        return None  # What was changed in a "c" is nowhere but here.
    try:
        found = Path(whole.filename).stat()
    except OSError:
        return None
    file = str(whole.filename), (found.st_dev, found.st_ino)
    part = _address(array) - _address(whole), array.shape, array.strides, array.dtype
    return load_part, (*file, array.flags.writeable, whole.offset, whole.nbytes, *part)


def load_part(
    path: str,
    identity: _Identity,
    is_writable: bool,
    offset: int,
    size: int,
    begin: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: Any,
) -> Any:
    """The array. Raises OSError if the file cannot be opened, ValueError if it is another one."""
    import numpy

    found = Path(path).stat()
    if (found.st_dev, found.st_ino) != identity:
        raise ValueError(
            f"{path}, the file of a numpy.memmap, is not the same here: give the function its content, as "
            "numpy.array(...), or open it there"
        )
    whole = numpy.memmap(path, numpy.uint8, "r+" if is_writable else "r", offset, (size,))
    array = numpy.ndarray(shape, dtype, whole, begin, strides)
    return array.view(numpy.memmap)


def _address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])
