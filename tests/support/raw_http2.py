"""An HTTP/2 client of a few frames, for what no gRPC client does: callers that stay silent, or read nothing."""

from __future__ import annotations

import asyncio
from types import TracebackType

_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_INITIAL_WINDOW_SIZE = 4


class RawConnection:
    """One connection. With `reads_nothing` it lets the server send no byte of any message."""

    def __init__(self, address: str, *, reads_nothing: bool = False) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._window = 0 if reads_nothing else (1 << 31) - 1
        self._next_stream = 1
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> RawConnection:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        setting = _INITIAL_WINDOW_SIZE.to_bytes(2, "big") + self._window.to_bytes(4, "big")
        self._writer.write(_PREFACE + _frame(_SETTINGS, 0, 0, setting))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.close()

    async def begin(
        self, method: str, *, message: bytes | None = None, flags: int = 0, more: dict[str, str] | None = None
    ) -> None:
        """Begins a call; without a message it stays silent afterwards. `flags` is the message's compression flag."""
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": method,
            ":authority": "localhost",
            "te": "trailers",
            "content-type": "application/grpc",
            **(more or {}),
        }
        block = b"".join(_literal(name) + _literal(value, begins=b"") for name, value in headers.items())
        frames = _frame(_HEADERS, _END_HEADERS, self._next_stream, block)
        if message is not None:
            body = bytes([flags]) + len(message).to_bytes(4, "big") + message
            frames += _frame(_DATA, _END_STREAM, self._next_stream, body)
        self._next_stream += 2
        self._writer.write(frames)
        await self._writer.drain()

    async def received(self, text: bytes) -> bool:
        """Reads until the server has sent this text; False if it closes the connection before."""
        seen = b""
        try:
            while text not in seen:
                more = await self._reader.read(1 << 16)
                if not more:
                    return False
                seen += more
        except ConnectionError:
            return False
        return True


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _literal(text: str, *, begins: bytes = b"\x00") -> bytes:
    """A literal of HPACK that is not indexed: https://www.rfc-editor.org/rfc/rfc7541#section-6.2.2."""
    encoded = text.encode()
    length, rest = bytes([min(len(encoded), 127)]), len(encoded) - 127
    if rest >= 0:
        while rest >= 128:
            length += bytes([rest % 128 + 128])
            rest //= 128
        length += bytes([rest])
    return begins + length + encoded
