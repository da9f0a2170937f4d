"""Calls of held methods, as RPyC writes them: what is the same in each is written once.

    message   kind (1 byte: request, reply, exception), then in brine (number, content)
    call      content is (HANDLE_CALL, boxed (method, arguments, no keywords))
    reply     content is a boxed value, or for an exception what `vinegar` makes of it

Brine writes a tuple as a head and then its items one after another, so that a message can be put together
from parts that were written before, and taken apart at places that are known.
"""

from __future__ import annotations

from typing import Any

from rpyc.core import brine, consts

REQUEST, REPLY, EXCEPTION = (
    bytes([kind]) for kind in (consts.MSG_REQUEST, consts.MSG_REPLY, consts.MSG_EXCEPTION)
)
_MARK = "where the arguments go"
_LONGEST_NUMBER = 24


def number_part(number: int) -> bytes:
    """The head of the pair (number, content), and the number: `None`, its content here, takes one byte."""
    part: bytes = brine.dump((number, None))[:-1]
    return part


class MethodCall:
    """Calls of one method. `reference` is what both ends know it by."""

    __slots__ = ("_after", "_before")

    def __init__(self, reference: Any) -> None:
        boxed = (
            (consts.LABEL_LOCAL_REF, reference),
            (consts.LABEL_VALUE, _MARK),
            (consts.LABEL_VALUE, ()),
        )
        content = brine.dump((consts.HANDLE_CALL, (consts.LABEL_TUPLE, boxed)))
        self._before, self._after = content.split(brine.dump(_MARK))

    def content(self, args: tuple[Any, ...]) -> bytes:
        """A call with these arguments, plain values all."""
        return b"".join((self._before, brine.dump(args), self._after))

    def read(self, message: bytes) -> tuple[bytes, Any] | None:
        """Of a request that is a call of this method: its number part, and the arguments. Else None."""
        before = self._before
        at = message.find(before, 2, 2 + _LONGEST_NUMBER + len(before))
        if at < 0 or not message.endswith(self._after):
            return None
        return message[1:at], brine.load(message[at + len(before) :])
