"""`make breaking` refuses a change of the contracts that breaks a released client, and lets an addition pass."""

from pathlib import Path

import pytest

from tests.contract.scratch import edit, make

EVENT = "proto/handrail/v1/event.proto"
FLOW_SERVICE = "proto/handrail/v1/flow_service.proto"


def test_the_contracts_as_they_stand_keep_what_was_released(scratch: Path) -> None:
    status, output = make("breaking", scratch)
    assert (status, "no findings" in output) == (0, True)


@pytest.mark.parametrize(
    "proto,message,field",
    [
        ("proto/research/v1/research.proto", "FileFound", "folder = 2"),
        ("proto/compliance/v1/compliance.proto", "ApprovalVerified", "approval_id = 2"),
        ("proto/payments/v1/payments.proto", "RefundPaid", "transfer_id = "),
    ],
)
def test_a_deleted_field_of_any_package_is_named(scratch: Path, proto: str, message: str, field: str) -> None:
    lines = (scratch / proto).read_text().splitlines()
    start = lines.index(f"message {message} {{")
    gone = next(number for number, line in enumerate(lines) if number > start and f" {field}" in line)
    assert lines[gone].endswith(";")
    (scratch / proto).write_text("\n".join([*lines[:gone], *lines[gone + 1 :]]))
    status, output = make("breaking", scratch)
    assert status != 0
    assert f'with name "{field.split()[0]}" on message "{message}" was deleted' in output


def test_a_field_newly_required_in_a_request_is_named(scratch: Path) -> None:
    edit(
        scratch / FLOW_SERVICE,
        r"^message CancelFlowRequest \{\n",
        "message CancelFlowRequest {\n  // ticket of the change.\n"
        "  string ticket = 1000 [(buf.validate.field).string.min_len = 1];\n",
    )
    status, output = make("breaking", scratch)
    assert status != 0
    assert f"{FLOW_SERVICE}: handrail.v1.CancelFlowRequest.ticket: field 1000 (string ticket) is new" in output
    assert "FIELD_ADDED_REQUIRED" in output


def test_a_narrower_rule_of_what_requests_hold_is_named(scratch: Path) -> None:
    edit(
        scratch / "proto/handrail/v1/template.proto",
        r"^message Gate \{\n",
        (
            "message Gate {\n  option (buf.validate.message).cel = {\n    id: 'never',\n    message: 'never',\n"
            "    expression: 'false'\n  };\n"
        ),
    )
    status, output = make("breaking", scratch)
    assert (status != 0, "handrail.v1.Gate: rule cel[never] is new" in output) == (True, True)


def test_a_package_that_was_never_released_is_named(scratch: Path) -> None:
    new = scratch / "proto/shop/v1/shop.proto"
    new.parent.mkdir(parents=True)
    new.write_text('syntax = "proto3";\npackage shop.v1;\n// Asked is new.\nmessage Asked {}\n')
    status, output = make("breaking", scratch)
    assert status != 0
    assert "proto/shop/v1/shop.proto: package shop.v1 is not in gen/released.binpb" in output
    assert make("release-image", scratch)[0] == 0
    assert make("breaking", scratch)[0] == 0


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
    status, output = make("breaking", scratch)
    assert (status, "no findings" in output) == (0, True)
