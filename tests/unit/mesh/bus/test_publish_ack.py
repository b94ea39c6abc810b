import pytest

from handrail.mesh.bus.publish_ack import read_ack
from handrail.mesh.errors import AlreadyStored, BrokerUnavailable, HandrailError, StreamFull, TooLarge, WrongSequence
from handrail.v1.error_reason_pb2 import ErrorReason


def refusal(code: int, text: str) -> bytes:
    return f'{{"error":{{"code":503,"err_code":{code},"description":"{text}"}},"stream":"FLOW","seq":0}}'.encode()


@pytest.mark.parametrize(
    "answer",
    [
        b'{"stream":"FLOW","seq":7}',
        b'{"stream": "FLOW", "seq": 7}',
        b'{"stream":"FLOW","domain":"hub","seq":7,"duplicate":true}',
    ],
)
def test_an_acknowledgement_gives_the_sequence(answer: bytes) -> None:
    assert read_ack("s", answer) == 7


def test_already_there_and_full_have_one_code_and_only_the_text_tells() -> None:
    assert isinstance(read_ack("s", refusal(10077, "maximum messages per subject exceeded")), AlreadyStored)
    for text in ("maximum messages exceeded", "maximum bytes exceeded"):
        outcome = read_ack("s", refusal(10077, text))
        assert isinstance(outcome, StreamFull)
        assert outcome.metadata["stream"] == "FLOW"


def test_a_wrong_sequence_with_and_without_the_last_one() -> None:
    known = read_ack("s", refusal(10071, "wrong last sequence: 42"))
    assert isinstance(known, WrongSequence)
    assert known.last_sequence == 42
    unknown = read_ack("s", refusal(10164, "wrong last sequence"))
    assert isinstance(unknown, WrongSequence)
    assert unknown.last_sequence is None


def test_other_refusals() -> None:
    assert isinstance(read_ack("s", refusal(10047, "insufficient storage resources available")), StreamFull)
    assert isinstance(read_ack("s", refusal(10008, "jetstream system temporarily unavailable")), BrokerUnavailable)
    too_large = read_ack("s", refusal(10054, "message size exceeds maximum allowed"))
    assert isinstance(too_large, HandrailError)
    assert too_large.reason == ErrorReason.ERROR_REASON_TOO_LARGE
    other = read_ack("s", refusal(10111, "rollup not permitted"))
    assert isinstance(other, HandrailError)
    assert "rollup not permitted" in other.text


@pytest.mark.parametrize("answer", [b"", b"+OK", b"[]", b"{}", b'{"seq":"x"}', b'{"error":3}', b"\xff", b"null"])
def test_an_answer_that_can_not_be_read_is_an_error_and_no_crash(answer: bytes) -> None:
    outcome = read_ack("s", answer)
    assert isinstance(outcome, HandrailError)
    assert outcome.reason == ErrorReason.ERROR_REASON_INTERNAL


def test_too_large_says_how_large() -> None:
    assert TooLarge("s", 11, 10).metadata == {"subject": "s", "size": "11", "limit": "10"}
