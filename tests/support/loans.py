"""A flow type from outside the source tree: its contracts are text in this file, compiled on demand."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

PROTO = """\
syntax = "proto3";
package library.v1;
import "buf/validate/validate.proto";

// LoanRequested begins a loan.
message LoanRequested {
  string book_id = 1 [(buf.validate.field).string.min_len = 1];
  int64 worth = 2 [(buf.validate.field).int64.gte = 0];
}
// BookReserved is undone by putting the book back.
message BookReserved {
  string book_id = 1;
}
// LoanGranted is gated for books of worth.
message LoanGranted {
  string book_id = 1;
  int64 worth = 2;
}
message BookHandedOver {
  string book_id = 1;
}
message BookPutBack {
  string book_id = 1;
}
"""

TEMPLATE: dict[str, Any] = {
    "name": "loan",
    "version": 1,
    "startsWith": ["library.v1.LoanRequested"],
    "startedBy": ["desk"],
    "completesWith": ["library.v1.BookHandedOver"],
    "deadline": "86400s",
    "steps": [
        {
            "name": "reserve",
            "agent": "stacks",
            "after": ["library.v1.LoanRequested"],
            "emits": ["library.v1.BookReserved"],
            "effect": "EFFECT_UNDOABLE",
            "timeout": "600s",
            "retry": {"maxAttempts": 2, "initialBackoff": "0.1s"},
            "undo": {"timeout": "600s", "emits": ["library.v1.BookPutBack"]},
        },
        {
            "name": "grant",
            "agent": "desk",
            "after": ["library.v1.BookReserved"],
            "emits": ["library.v1.LoanGranted"],
            "effect": "EFFECT_NONE",
            "timeout": "600s",
        },
        {
            "name": "hand_over",
            "agent": "desk",
            "after": ["library.v1.LoanGranted"],
            "emits": ["library.v1.BookHandedOver"],
            "effect": "EFFECT_IRREVERSIBLE",
            "timeout": "600s",
        },
    ],
    "gates": [
        {
            "name": "precious",
            "on": "library.v1.LoanGranted",
            "when": "event.worth >= 100",
            "approvers": {"roles": ["librarian"], "quorum": 2, "notTheRequester": True},
            "expiresAfter": "3600s",
            "onReject": "REJECT_ACTION_COMPENSATE",
        }
    ],
}


def descriptors(folder: Path, proto: str = PROTO) -> bytes:
    """The descriptor set of the proto, with imports, as its owner builds it."""
    source, target = folder / "loans.proto", folder / "loans.binpb"
    folder.mkdir(parents=True, exist_ok=True)
    source.write_text(proto)
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", f"-I{ROOT / 'proto'}", "--include_imports"]
    subprocess.run([*command, f"--descriptor_set_out={target}", str(source)], check=True)
    return target.read_bytes()


def put_request(folder: Path, **changes: Any) -> dict[str, Any]:
    """PutTemplateRequest as JSON; `changes` go into the template."""
    return {
        "template": {**TEMPLATE, **changes},
        "descriptors": base64.b64encode(descriptors(folder)).decode(),
    }
