"""What the SDK reads from a handler's annotations."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from handrail.agents import Context, DeclarationError
from handrail.agents.handler import Function, Handler, Purpose
from handrail.agents.read_handler import read_handler
from payments.v1.payments_pb2 import (
    ChargebackEnriched,
    ChargebackReceived,
    CustomerNotified,
    LargeRefundGranted,
    RefundPaid,
    SmallRefundGranted,
)

GRANTED = {"payments.v1.SmallRefundGranted", "payments.v1.LargeRefundGranted"}


def read(function: Function, *inputs: type, purpose: Purpose = Purpose.STEP) -> Handler:
    return read_handler(function, purpose, inputs or (ChargebackReceived,))


def refusal(function: Function, *inputs: type, purpose: Purpose = Purpose.STEP) -> str:
    with pytest.raises(DeclarationError) as refused:
        read_handler(function, purpose, inputs)
    return str(refused.value)


def test_a_handler_that_takes_an_event_and_a_context() -> None:
    async def enrich(event: ChargebackReceived, ctx: Context) -> ChargebackEnriched: ...  # type: ignore[empty-body]

    handler = read(enrich)
    assert handler.asynchronous
    assert handler.context_name == "ctx"
    assert [parameter.name for parameter in handler.parameters] == ["event"]
    assert set(handler.returns) == {"payments.v1.ChargebackEnriched"}
    assert handler.single_answer


def test_the_context_may_come_first_or_not_at_all() -> None:
    def first(context: Context, event: ChargebackReceived) -> None: ...
    def without(event: ChargebackReceived) -> None: ...

    assert read(first).context_name == "context"
    assert read(without).context_name == ""
    assert not read(first).asynchronous


def test_an_event_that_the_decorator_names_needs_no_annotation() -> None:
    def enrich(event) -> None: ...  # type: ignore[no-untyped-def]

    assert read(enrich).parameters[0].types == (ChargebackReceived,)


def test_one_of_several_answers() -> None:
    def grant(event: ChargebackReceived) -> SmallRefundGranted | LargeRefundGranted: ...  # type: ignore[empty-body]

    handler = read(grant)
    assert set(handler.returns) == GRANTED
    assert not handler.single_answer
    assert not handler.may_return_nothing


def test_an_answer_or_nothing() -> None:
    def grant(event: ChargebackReceived) -> SmallRefundGranted | None: ...

    handler = read(grant)
    assert handler.may_return_nothing
    assert not handler.single_answer, "it may answer with StepCompleted too"


def test_nothing_is_one_answer() -> None:
    def watch(event: ChargebackReceived) -> None: ...

    handler = read(watch)
    assert handler.may_return_nothing
    assert handler.single_answer


def test_several_answers_at_once() -> None:
    def as_list(event: ChargebackReceived) -> list[SmallRefundGranted | LargeRefundGranted]: ...  # type: ignore[empty-body]
    def as_tuple(event: ChargebackReceived) -> tuple[SmallRefundGranted, LargeRefundGranted]: ...  # type: ignore[empty-body]
    def as_generator(event: ChargebackReceived) -> Iterator[SmallRefundGranted | LargeRefundGranted]: ...  # type: ignore[empty-body]

    for function in (as_list, as_tuple, as_generator):
        handler = read(function)
        assert handler.several
        assert set(handler.returns) == GRANTED
    assert read(as_list).may_return_nothing, "the list may be empty"


def test_one_handler_for_several_events() -> None:
    def pay(event: SmallRefundGranted | LargeRefundGranted) -> RefundPaid: ...  # type: ignore[empty-body]

    handler = read(pay, SmallRefundGranted, LargeRefundGranted)
    assert set(handler.inputs) == GRANTED


def test_a_join_takes_one_parameter_for_each_event() -> None:
    def gather(one: ChargebackReceived, ctx: Context, many: list[RefundPaid]) -> CustomerNotified: ...  # type: ignore[empty-body]

    handler = read(gather, ChargebackReceived, RefundPaid, purpose=Purpose.JOIN)
    assert [(p.name, p.several) for p in handler.parameters] == [("one", False), ("many", True)]


def test_a_handler_without_a_return_annotation_is_refused() -> None:
    def enrich(event: ChargebackReceived): ...  # type: ignore[no-untyped-def]

    assert "annotate what it returns" in refusal(enrich, ChargebackReceived)


def test_a_handler_that_returns_no_message_is_refused() -> None:
    def enrich(event: ChargebackReceived) -> int: ...  # type: ignore[empty-body]

    assert "no message that it could return" in refusal(enrich, ChargebackReceived)


def test_a_handler_for_no_event_is_refused() -> None:
    def enrich(event: ChargebackReceived) -> None: ...

    assert "say which messages it is for" in refusal(enrich)


def test_a_handler_for_something_else_than_a_message_is_refused() -> None:
    def enrich(event: int) -> None: ...

    assert "is not a protobuf message class" in refusal(enrich, int)


def test_a_handler_that_takes_another_event_than_it_is_declared_for_is_refused() -> None:
    def enrich(event: RefundPaid) -> None: ...

    assert "no parameter takes payments.v1.ChargebackReceived" in refusal(enrich, ChargebackReceived)


def test_parameters_that_nothing_can_fill_are_refused() -> None:
    def star(*events: ChargebackReceived) -> None: ...
    def strange(event: ChargebackReceived, extra: int) -> None: ...

    assert "can't be filled" in refusal(star, ChargebackReceived)
    assert "parameter extra is neither a message nor a Context" in refusal(strange, ChargebackReceived)


def test_only_a_join_takes_a_list() -> None:
    def enrich(events: list[ChargebackReceived]) -> None: ...

    assert "only a join" in refusal(enrich, ChargebackReceived)


def test_a_join_that_leaves_an_event_out_is_refused() -> None:
    def gather(one: ChargebackReceived) -> None: ...

    text = refusal(gather, ChargebackReceived, RefundPaid, purpose=Purpose.JOIN)
    assert "no parameter takes payments.v1.RefundPaid" in text


def test_an_undo_with_several_answers_is_refused() -> None:
    def take_back(event: RefundPaid) -> list[CustomerNotified]: ...  # type: ignore[empty-body]

    assert "an undo must answer with one message" in refusal(take_back, RefundPaid, purpose=Purpose.UNDO)


def test_annotations_that_name_nothing_are_refused() -> None:
    def enrich(event: ChargebackReceived) -> Enriched: ...  # type: ignore[name-defined]  # noqa: F821

    assert "can't be resolved" in refusal(enrich, ChargebackReceived)
