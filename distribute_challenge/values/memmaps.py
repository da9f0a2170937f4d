"""`numpy.memmap` by its file: for functions that write their results into one, as joblib's users do."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path
from typing import Any


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
    if type(whole) is not numpy.memmap or whole.filename is None or whole.mode == "c" or not array.size:
        return None  # What was changed in a "c" is nowhere but here.
    path = os.path.realpath(whole.filename)
    try:
        found = Path(path).stat()
    except OSError:
        return None
    if path != _mapped_at(_address(whole)) or found.st_size < whole.offset + whole.nbytes:
        return None  # Another file has that name by now, or it was cut.
    file = path, (found.st_dev, found.st_ino)
    part = _address(array) - _address(whole), array.shape, array.strides, array.dtype
    return load_part, (*file, array.flags.writeable, whole.offset, whole.nbytes, *part)


def load_part(
    path: str,
    identity: tuple[int, int],  # device and inode
    is_writable: bool,
    offset: int,
    size: int,
    begin: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: Any,
) -> Any:
    """The array, a `numpy.memmap`. Raises ValueError if the file is another one here, or not there."""
    import numpy

    try:
        found = Path(path).stat()
        if (found.st_dev, found.st_ino) != identity or found.st_size < offset + size:
            raise FileNotFoundError("another file has its name, or it was cut")
        whole = numpy.memmap(path, numpy.uint8, "r+" if is_writable else "r", offset, (size,))
    except OSError as error:
        raise ValueError(
            f"{path}, the file of a numpy.memmap, cannot be mapped here ({error}): give the function its "
            "content, as numpy.array(...), or open it there"
        ) from None
    first = whole[begin : begin + dtype.itemsize].view(dtype)
    return numpy.lib.stride_tricks.as_strided(first, shape, strides, subok=True, writeable=is_writable)


def _mapped_at(address: int) -> str | None:
    """The file that is mapped there, where it is now. None if it has no name any more."""
    for line in Path("/proc/self/maps").read_bytes().split(b"\n")[:-1]:
        begin, _, end = line.partition(b" ")[0].partition(b"-")
        if int(begin, 16) <= address < int(end, 16):
            return os.fsdecode(line.split(None, 5)[-1].replace(rb"\012", b"\n"))
    return None


def _address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])
