"""Field masks of lists: which fields of each item are returned (https://google.aip.dev/157)."""

from __future__ import annotations

from collections.abc import Container
from typing import Generic, Protocol, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from handrail.mesh.errors import ContractViolation, FieldViolation
from handrail.mesh.printable import clean, shortened

_FIELD = "read_mask"
_SHOWN = 80

View = TypeVar("View", bound=Message)


class _Masked(Protocol):
    """A request with a field mask."""

    @property
    def read_mask(self) -> FieldMask: ...


def _is_known(path: str, item: type[Message]) -> bool:
    # The stub does not know the class of descriptors that there is.
    return FieldMask(paths=[path]).IsValidForDescriptor(item.DESCRIPTOR)  # type: ignore[arg-type]


class ReadMask(Generic[View]):
    """The mask of a request for items of a class. An empty mask, and one with `*`, is everything."""

    def __init__(self, request: _Masked, item: type[View]) -> None:
        """Raises CONTRACT_VIOLATION if it names a field that the items don't have."""
        paths = list(request.read_mask.paths)
        self._item = item
        self._mask = None if not paths or paths == ["*"] else FieldMask(paths=paths)
        unknown = [each for each in paths if not _is_known(each, item)]
        if self._mask is not None and unknown:
            text = f"{item.DESCRIPTOR.name} has no field {shortened(clean(unknown[0]), _SHOWN)}"
            raise ContractViolation(_FIELD, [FieldViolation(_FIELD, "field_mask.known", text)])

    def is_within(self, fields: Container[str]) -> bool:
        """Tells whether it names nothing but these fields."""
        return self._mask is not None and all(each.partition(".")[0] in fields for each in self._mask.paths)

    def of(self, view: View) -> View:
        """Returns an item with the fields that it names."""
        if self._mask is None:
            return view
        masked = self._item()
        self._mask.MergeMessage(view, masked)
        return masked
