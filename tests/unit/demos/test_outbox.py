"""The outbox holds a message once, whatever crashed and whoever else writes."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from demos.payments.outbox import Letter, Outbox


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.jsonl"


def send(outbox: Outbox, key: str = "key", text: str = "Your refund is on its way.") -> Letter:
    return outbox.send(
        key=key, flow_id="f" * 32, chargeback_id="cb-1", to="ada@example.com", outcome="OUTCOME_REFUNDED", text=text
    )


def test_a_message_is_one_line_of_json(path: Path) -> None:
    letter = send(Outbox(path), text='two\nlines, "quoted"')
    (line,) = path.read_text("utf-8").splitlines()
    assert json.loads(line)["message_id"] == letter.message_id
    assert json.loads(line)["text"] == 'two\nlines, "quoted"'


def test_p8_the_same_key_writes_one_message(path: Path) -> None:
    outbox = Outbox(path)
    first = send(outbox)
    assert send(outbox) == first
    assert send(Outbox(path)) == first
    assert Outbox(path).letters() == [first]


def test_p8_many_writers_write_every_message_once(path: Path) -> None:
    keys = [f"key-{number % 10}" for number in range(60)]
    outboxes = [Outbox(path) for _ in range(4)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda at: send(outboxes[at % 4], keys[at]), range(60)))
    letters = Outbox(path).letters()
    assert len(letters) == len({letter.message_id for letter in letters}) == 10
    assert len(path.read_bytes().splitlines()) == 10


@pytest.mark.parametrize("kept", [1, 10, -1])
def test_p8_a_line_cut_short_by_a_crash_is_written_anew(path: Path, kept: int) -> None:
    first, second = send(Outbox(path), "one"), send(Outbox(path), "two")
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    path.write_bytes(whole[:start] + whole[start:][:kept])
    outbox = Outbox(path)
    assert outbox.letters() == [first]
    again = send(outbox, "two")
    assert again.message_id == second.message_id
    assert Outbox(path).letters() == [first, again]


def test_a_new_file_in_the_place_of_the_old_one_is_read_anew(path: Path) -> None:
    outbox = Outbox(path)
    send(outbox)
    path.unlink()
    send(outbox)
    assert len(path.read_bytes().splitlines()) == 1
