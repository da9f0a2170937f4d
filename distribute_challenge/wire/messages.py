"""Calls of held methods, as RPyC writes them: what is the same in each is written once.

    message   kind (1 byte: request, reply, exception), then in brine (number, content)
    call      content is (HANDLE_CALL, boxed (method, arguments, no keywords))
    reply     content is a boxed value, or for an exception what `vinegar` makes of it

Brine writes a tuple as a head and then its items, so that messages can be put together from parts. A text and
bytes are written and read here, in a third of the time; all else by brine itself.
"""

from __future__ import annotations

import functools
from typing import Any

from rpyc.core import brine, consts

REQUEST, REPLY, EXCEPTION = (
    bytes([kind]) for kind in (consts.MSG_REQUEST, consts.MSG_REPLY, consts.MSG_EXCEPTION)
)
FIRST_NUMBER = 1000  # Those from 160 on brine writes as digits.

_MARK = "where the arguments go"
_LONGEST_NUMBER = 24
_NUMBER = brine.TAG_TUP2 + brine.TAG_INT_L1  # The head of a pair whose first item is an int.
_NUMBERS: list[bytes] = [_NUMBER + bytes([length]) for length in range(_LONGEST_NUMBER)]
_VALUE = brine.TAG_TUP2 + brine.dump(consts.LABEL_VALUE)
_TEXT_AND = brine.TAG_TUP2 + brine.TAG_UNICODE
_SHORTEST = 5  # Bytes up to here brine writes in other ways.
_SHORT, _LONG = brine.TAG_STR_L1[0], brine.TAG_STR_L4[0]  # the tags of bytes that are longer
# Texts and arguments up to these lengths, most of which come again and again.
_REMEMBERED, _REMEMBERED_ARGS = 1 << 14, 1 << 6
_dump_text = functools.lru_cache(maxsize=64)(brine.dump)


def number_part(number: int) -> bytes:
    """The head of the pair (number, content), and the number, which is at least FIRST_NUMBER."""
    digits = b"%d" % number
    return _NUMBERS[len(digits)] + digits


def value_content(value: Any) -> tuple[bytes, ...]:
    """The content of a reply: a plain value."""
    if type(value) is bytes:
        return _VALUE, *_bytes_parts(value)
    return (_dump_int(value) if type(value) is int else brine.dump((consts.LABEL_VALUE, value)),)


def load_reply(message: bytes) -> tuple[bytes, Any]:
    """The number part of a reply, and its content. Raises whatever for what is none."""
    if message[1:3] != _NUMBER:
        raise ValueError("a message without its number")
    at = 4 + message[3]
    number = message[1:at]
    if message.startswith(_VALUE, at) and (span := _bytes_at(message, at + len(_VALUE), len(message))):
        return number, (consts.LABEL_VALUE, message[slice(*span)])
    return number, brine.load(message[at:])


class MethodCall:
    """Calls of one method. `reference` is what both ends know it by: its name, or what RPyC makes of it."""

    __slots__ = ("_after", "_before", "reference")

    def __init__(self, reference: Any) -> None:
        self.reference = reference
        boxed = ((consts.LABEL_LOCAL_REF, reference), (consts.LABEL_VALUE, _MARK), (consts.LABEL_VALUE, ()))
        content = brine.dump((consts.HANDLE_CALL, (consts.LABEL_TUPLE, boxed)))
        self._before, self._after = content.split(brine.dump(_MARK))

    def content(self, args: tuple[Any, ...]) -> tuple[bytes, ...]:
        """A call with these arguments, plain values all."""
        if len(args) == 2 and type(args[0]) is str and type(args[1]) is bytes:
            text, data = args
            dumped = _dump_text(text) if len(text) < _REMEMBERED else brine.dump(text)
            return self._before, brine.TAG_TUP2, dumped, *_bytes_parts(data), self._after
        return self._before, brine.dump(args), self._after

    def request(self, number: int, args: tuple[Any, ...]) -> tuple[bytes, bytes]:
        """The number part of the message that makes a call, and the message."""
        part = number_part(number)
        return part, b"".join((REQUEST, part, *self.content(args)))

    def read(self, message: bytes) -> tuple[bytes, Any] | None:
        """Of a request that is a call of this method: its number part, and the arguments. Else None."""
        before = self._before
        at = message.find(before, 2, 2 + _LONGEST_NUMBER + len(before))
        if at < 0 or not message.endswith(self._after):
            return None
        args = _load_args(message, at + len(before), len(message) - len(self._after))
        return None if args is None else (message[1:at], args)


def _load_args(message: bytes, at: int, end: int) -> tuple[Any, ...] | None:
    """The arguments of a call, if they, and nothing else, are written between two places in a message."""
    if message.startswith(_TEXT_AND, at) and (text := _bytes_at(message, at + len(_TEXT_AND))):
        data = _bytes_at(message, text[1], end)
        if data is not None:
            return message[slice(*text)].decode(), message[slice(*data)]
    load_plain = _load_plain if end - at < _REMEMBERED_ARGS else _load_plain.__wrapped__
    return load_plain(message[at:end])


def _bytes_parts(data: bytes) -> tuple[bytes, ...]:
    size = len(data)
    if size > 255:
        return brine.TAG_STR_L4 + brine.I4.pack(size), data
    if size >= _SHORTEST:
        return brine.TAG_STR_L1 + bytes((size,)), data
    return (brine.dump(data),)


def _bytes_at(message: bytes, at: int, end: int | None = None) -> tuple[int, int] | None:
    """Where bytes that are written at a place begin and end; None if there are none, or not up to `end`."""
    size = len(message)
    if at + 5 > size:
        return None
    if message[at] == _LONG:
        first = at + 5
        last = first + brine.I4.unpack_from(message, at + 1)[0]
    elif message[at] == _SHORT:
        first = at + 2
        last = first + message[at + 1]
    else:
        return None
    return (first, last) if (last <= size if end is None else last == end) else None


@functools.lru_cache(maxsize=256)
def _load_plain(data: bytes) -> tuple[Any, ...] | None:
    """The arguments that these bytes, and no others, stand for."""
    try:
        args = brine.load(data)
    except Exception:  # RPyC will tell the peer what is wrong with it.
        return None
    return args if type(args) is tuple and brine.dump(args) == data else None


@functools.lru_cache(maxsize=256)
def _dump_int(value: int) -> bytes:
    """The content of a reply: a port, a count."""
    dumped: bytes = brine.dump((consts.LABEL_VALUE, value))
    return dumped
