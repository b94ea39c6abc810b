"""`make breaking` refuses a change of the contracts that breaks a released client, and lets an addition pass."""

from pathlib import Path

from tests.contract.scratch import edit, make

EVENT = "proto/handrail/v1/event.proto"
FLOW_SERVICE = "proto/handrail/v1/flow_service.proto"


def test_the_contracts_as_they_stand_keep_what_was_released(scratch: Path) -> None:
    assert make("breaking", scratch) == (0, "")


def test_a_deleted_field_is_named(scratch: Path) -> None:
    edit(scratch / EVENT, r"^  string causation_id = 12\b[^;]*;\n", "")
    status, output = make("breaking", scratch)
    assert status != 0
    assert '"causation_id"' in output
    assert EVENT in output


def test_a_deleted_rpc_is_named(scratch: Path) -> None:
    edit(scratch / FLOW_SERVICE, r"^  rpc CancelFlow\([^}]*\}\n", "")
    status, output = make("breaking", scratch)
    assert status != 0
    assert '"CancelFlow"' in output
    assert FLOW_SERVICE in output


def test_a_deleted_file_is_named(scratch: Path) -> None:
    (scratch / "proto/payments/v1/payments.proto").unlink()
    status, output = make("breaking", scratch)
    assert status != 0
    assert "payments/v1/payments.proto" in output


def test_an_added_field_and_an_added_rpc_pass(scratch: Path) -> None:
    edit(scratch / EVENT, r"^message Event \{\n", "message Event {\n  // added is new.\n  string added = 1000;\n")
    edit(
        scratch / FLOW_SERVICE,
        r"^service FlowService \{\n",
        "service FlowService {\n  // Added is new.\n  rpc Added(AddedRequest) returns (AddedResponse);\n",
    )
    with (scratch / FLOW_SERVICE).open("a", encoding="utf-8") as file:
        file.write(
            "// AddedRequest is new.\nmessage AddedRequest {}\n// AddedResponse is new.\nmessage AddedResponse {}\n"
        )
    assert make("breaking", scratch) == (0, "")
