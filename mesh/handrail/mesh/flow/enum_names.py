"""The names of enums as plain attributes: `HaltMode.HALT_MODE_HOLD` then costs a look-up, and not a microsecond.

Protobuf searches a name in the enum's descriptor at each access, in Python. A decision reads some twenty names.
"""

from __future__ import annotations

from types import ModuleType


def settle(*files: ModuleType) -> None:
    """Makes the names of all enums of these generated files attributes, with the values that they have anyway."""
    for file in files:
        for enum, descriptor in file.DESCRIPTOR.enum_types_by_name.items():
            for value in descriptor.values:
                setattr(getattr(file, enum), value.name, value.number)
