"""Authorisation of the current RPC: who its caller is, and what the caller may do on which flow type.

The guard admits the caller before anything is read. Where the flow type is known only after a lookup, the lookup asks
`require_on`: what a caller may not read looks exactly like what does not exist.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from google.protobuf.message import Message

from handrail.coordinator.api.access import ACCESS, Access, Scope
from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.decide.grants import EVERY_TYPE
from handrail.mesh.errors import HandrailError
from handrail.mesh.wire.subjects import NAME
from handrail.v1.error_reason_pb2 import ErrorReason


@dataclass(frozen=True, slots=True)
class _Current:
    method: str
    caller: Caller


_current: ContextVar[_Current] = ContextVar("current_call")


def current_caller() -> Caller:
    """Returns the verified caller of the current RPC; raises LookupError outside of one."""
    return _current.get().caller


def caller_if_known() -> Caller | None:
    """Returns the verified caller of the current RPC, or None if nobody was verified."""
    current = _current.get(None)
    return None if current is None else current.caller


def set_caller(caller: Caller, method: str) -> None:
    """Remembers who calls which method (its full path) for the rest of this RPC, which runs in its own task."""
    _current.set(_Current(method, caller))


def require() -> None:
    """Raises MISSING_ROLE unless the current caller may call the current method, for one flow type at least."""
    current = _current.get()
    access = ACCESS.get(current.method)
    if access is None:
        raise _missing(current, "nobody may call it")
    if not access.admits(current.caller):
        raise _missing(current, f"it needs {access.needs()}")


def require_given(request: object) -> None:
    """Raises MISSING_ROLE if the request brings a template of a name that the current caller's role does not cover."""
    current = _current.get(None)
    if current is None:
        return
    access = ACCESS[current.method]
    name = _given_name(access, request)
    if name and not access.covers(current.caller, name):
        raise _missing(current, f"it needs {access.needs(name)}", name)


def require_on(flow_type: str, missing: HandrailError) -> None:
    """Raises an error unless the current method may be called on something of this flow type.

    The error is `missing`, the one for what does not exist, if the caller may not read the flow type; MISSING_ROLE if
    the caller may read it, but lacks the role. Raises LookupError outside of an RPC.
    """
    current = _current.get()
    if not current.caller.reads(flow_type):
        raise missing
    access = ACCESS[current.method]
    if not access.covers(current.caller, flow_type):
        raise _missing(current, f"it needs {access.needs(flow_type)}", flow_type)


def missing_role(flow_type: str = "") -> HandrailError:
    """Returns the error for a caller who lacks the role for the current method, on a flow type or on all of them."""
    current = _current.get()
    access = ACCESS[current.method]
    return _missing(current, f"it needs {access.needs(flow_type) if flow_type else access.needs()}", flow_type)


def lists(flow_type: str) -> bool:
    """Tells whether the current method shows the current caller items of this flow type."""
    current = _current.get()
    return ACCESS[current.method].covers(current.caller, flow_type)


def listed_types() -> frozenset[str] | None:
    """Returns the flow types of which the current method shows items to the current caller; None for every type.

    It agrees with `lists`.
    """
    current = _current.get()
    access = ACCESS[current.method]
    if access.covers(current.caller, EVERY_TYPE):
        return None
    return frozenset(each.flow_type for each in current.caller.grants if access.covers(current.caller, each.flow_type))


def _given_name(access: Access, request: object) -> str:
    """Returns the name of the template that a request brings; empty if there is none, or if it breaks its contract."""
    if access.scope is not Scope.GIVEN or not isinstance(request, Message):
        return ""
    name: str = getattr(request, "template").name  # noqa: B009  # requests of this scope have the field
    return name if NAME.fullmatch(name) else ""


def _missing(current: _Current, why: str, flow_type: str = "") -> HandrailError:
    method = current.method.rpartition("/")[2]
    on = f" on flow type {flow_type}" if flow_type else ""
    scoped = {"flow_type": flow_type} if flow_type else {}
    return HandrailError(
        ErrorReason.ERROR_REASON_MISSING_ROLE,
        f"{current.caller.subject} may not call {method}{on}: {why}",
        subject=current.caller.subject,
        method=current.method,
        **scoped,
    )
