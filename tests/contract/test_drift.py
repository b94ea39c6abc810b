"""`make drift` finds generated code that is not what the contracts generate."""

from pathlib import Path

from tests.contract.scratch import make

GENERATED = "gen/python/handrail/v1"


def test_the_committed_code_is_what_the_contracts_generate(scratch: Path) -> None:
    assert make("drift", scratch) == (0, "")


def test_a_contract_changed_without_make_gen_is_found(scratch: Path) -> None:
    with (scratch / "proto/handrail/v1/event.proto").open("a", encoding="utf-8") as file:
        file.write("// Added is new.\nmessage Added {}\n")
    status, output = make("drift", scratch)
    assert status != 0
    assert f"{GENERATED}/event_pb2.py" in output
    assert f"{GENERATED}/descriptors.binpb" in output
    assert "run make gen" in output


def test_a_generated_file_that_nothing_generates_is_found(scratch: Path) -> None:
    (scratch / GENERATED / "leftover_pb2.py").write_text("")
    status, output = make("drift", scratch)
    assert status != 0
    assert "leftover_pb2.py" in output
