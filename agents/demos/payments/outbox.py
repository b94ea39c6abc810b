"""The outbox: the file of messages to customers. Each message is in it once."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class Letter:
    """A message to a customer. `outcome` is the name of a payments.v1.Outcome; `time` is RFC 3339."""

    message_id: str
    time: str
    flow_id: str
    chargeback_id: str
    to: str
    outcome: str
    text: str


class Outbox:
    """An append-only file of JSON lines, one per message, that any number of processes may share.

    A message that is sent again with the same key is found, not written. A line that a crash left unfinished was never
    reported as sent; it is cut off before the next line is written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # The messages read so far, and the position in the file, which only grows.
        self._letters: dict[str, Letter] = {}
        self._read_to = 0

    def send(self, *, key: str, flow_id: str, chargeback_id: str, to: str, outcome: str, text: str) -> Letter:
        """Writes a message, once per key; returns the stored one."""
        message_id = "msg-" + hashlib.sha256(key.encode()).hexdigest()[:24]
        with self._locked() as file:
            self._catch_up(file)
            if message_id not in self._letters:
                letter = Letter(message_id, datetime.now(UTC).isoformat(), flow_id, chargeback_id, to, outcome, text)
                file.truncate(self._read_to)
                file.write(json.dumps(asdict(letter), ensure_ascii=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
                self._catch_up(file)
            return self._letters[message_id]

    def letters(self) -> list[Letter]:
        """All messages, in the order in which they were written."""
        with self._locked() as file:
            self._catch_up(file)
            return list(self._letters.values())

    def _catch_up(self, file: BinaryIO) -> None:
        """Reads the complete lines that were written since the last call."""
        if file.seek(0, os.SEEK_END) < self._read_to:  # the file was replaced
            self._letters, self._read_to = {}, 0
        file.seek(self._read_to)
        for line in file:
            if not line.endswith(b"\n"):
                break
            letter = Letter(**json.loads(line))
            self._letters[letter.message_id] = letter
            self._read_to += len(line)

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """The open file, locked against all other processes and threads until it is closed."""
        with self._path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
