"""Parses what the broker sends, which is not trusted.

Publishers choose the headers of a stored message, and parts of its subject. nats-py's own parser stops for good if a
subject is not UTF-8 or an inline status is not ASCII, and drops the connection if a subject contains a vertical tab,
each time the message is delivered. This parser replaces bytes that are not UTF-8 with U+FFFD, and keeps headers as raw
bytes until a reader needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from handrail.mesh.bus.protocol import BrokenProtocol, Message

_LONGEST_LINE = 1 << 16
"""Bytes. The broker limits a line to `max_control_line`, 4,096 by default; its INFO may be longer."""

_LINE = _LONGEST_LINE + len(b"\r\n")
_MOST_DIGITS = 10
"""The broker counts sizes in 32 bits."""

Listener = Callable[[Message], None]


class Parser:
    """Parses the bytes of one connection, however they are cut.

    `listeners` receive the messages, by the id of their subscription; messages of other subscriptions are dropped.
    `on_line` receives verb and rest of all other lines; `on_error` what a listener raises.
    """

    def __init__(
        self,
        listeners: Mapping[bytes, Listener],
        on_line: Callable[[bytes, bytes], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._listeners = listeners
        self._on_line = on_line
        self._on_error = on_error
        self._rest = bytearray()
        self._needed = 0

    def feed(self, data: bytes) -> None:
        """Passes on what these bytes complete.

        Raises BrokenProtocol if they violate the protocol: then nothing more may be fed.
        """
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return
            data = bytes(self._rest)
            self._rest.clear()
        position, length = 0, len(data)
        while position < length:
            end = data.find(b"\r\n", position, position + _LINE)
            if end < 0:
                if length - position >= _LINE:
                    raise BrokenProtocol("a line without an end")
                self._needed = 0
                break
            fields = data[position:end].split(b" ")
            verb = fields[0]
            if verb == b"MSG" or verb == b"HMSG":
                head = _size(fields.pop(-2)) if verb == b"HMSG" and len(fields) > 1 else 0
                size = _size(fields[-1])
                if not 4 <= len(fields) <= 5 or head > size:
                    raise BrokenProtocol("a malformed message")
                begin = end + 2
                after = begin + size
                if after + 2 > length:
                    self._needed = after + 2 - position
                    break
                if data[after : after + 2] != b"\r\n":
                    raise BrokenProtocol("a message without an end")
                self._deliver(fields, data[begin + head : after], data[begin : begin + head] if head else b"")
                position = after + 2
            else:
                position = end + 2
                self._on_line(verb.upper(), b" ".join(fields[1:]))
        self._rest += data[position:]

    def _deliver(self, fields: list[bytes], payload: bytes, block: bytes) -> None:
        listener = self._listeners.get(fields[2])
        if listener is None:
            if not fields[2].isdigit():
                raise BrokenProtocol("a message for a subscription that is no number")
            return
        reply = fields[3].decode(errors="replace") if len(fields) == 5 else ""
        try:
            listener(Message(fields[1].decode(errors="replace"), reply, payload, block))
        except Exception as error:
            self._on_error(error)


def _size(digits: bytes) -> int:
    """A size in bytes."""
    if not digits.isdigit() or len(digits) > _MOST_DIGITS:
        raise BrokenProtocol("a size that is no number")
    return int(digits)
