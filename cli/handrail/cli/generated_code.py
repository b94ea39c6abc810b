"""Where generated Python code finds the validator's rules, `buf/validate/validate.proto`.

Protobuf's generator imports them from `buf.validate`, a package that a distribution of ours has no right to bring.
`handrail.validate` has them instead.
"""

from __future__ import annotations

import re
from pathlib import Path

_IMPORT = re.compile(r"^from buf\.validate import validate_pb2\b", re.MULTILINE)
_OWN_IMPORT = "from handrail.validate import validate_pb2"


def use_own_rules(folder: Path) -> None:
    """Rewrites the generated modules and stubs below a folder: they import the rules from `handrail.validate`."""
    for path in (*folder.rglob("*_pb2.py"), *folder.rglob("*_pb2.pyi")):
        text = path.read_text("utf-8")
        changed = _IMPORT.sub(_OWN_IMPORT, text)
        if changed != text:
            path.write_text(changed, "utf-8")
