"""The tree of a checked CEL expression, in the form that the engine exports and imports.

The form is a binary `cel.expr.CheckedExpr` in an `Any`. Only the fields that this package reads or changes are
declared; all others pass through unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

DOUBLE = 4
"""`Type.primitive` and `Type.wrapper` of a double."""

STRING, BYTES = 5, 6
"""`Type.primitive` and `Type.wrapper` of a string and of bytes."""

ANY = 1
"""`Type.well_known` of an `Any`."""

_FIELDS: Mapping[str, str] = {
    "Checked": "references=2:*ReferenceOf types=3:*TypeOf expr=4:Expr",
    "ReferenceOf": "key=1:int value=2:Reference",
    "Reference": "name=1:str overload_id=3:*str",
    "TypeOf": "key=1:int value=2:Type",
    "Type": "dyn=1:Nothing null=2:int primitive=3:int wrapper=4:int well_known=5:int list=6:ListOf map=7:MapOf"
    " message=9:str",
    "Nothing": "",
    "ListOf": "element=1:Type",
    "MapOf": "key=1:Type value=2:Type",
    "Expr": "id=2:int constant=3:Constant ident=4:Ident select=5:Select call=6:Call list=7:List struct=8:Struct"
    " comprehension=9:Comprehension",
    "Constant": "bool_value=2:bool int64_value=3:int uint64_value=4:uint double_value=5:double string_value=6:str"
    " bytes_value=7:bytes",
    "Ident": "name=1:str",
    "Select": "operand=1:Expr field=2:str test_only=3:bool",
    "Call": "target=1:Expr function=2:str args=3:*Expr",
    "List": "elements=1:*Expr",
    "Struct": "entries=2:*Entry",
    "Entry": "key=3:Expr value=4:Expr",
    "Comprehension": "iter_var=1:str iter_range=2:Expr accu_var=3:str accu_init=4:Expr loop_condition=5:Expr"
    " loop_step=6:Expr result=7:Expr",
}
_SCALARS = {
    "int": FieldDescriptorProto.TYPE_INT64,
    "uint": FieldDescriptorProto.TYPE_UINT64,
    "str": FieldDescriptorProto.TYPE_STRING,
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
}


# The classes from here to `_Checked` only declare the fields for the type checker: the engine's messages have them.


class Type(Message):
    """The type of a node: at most one of its declared fields is set."""

    dyn: Message
    null: int
    primitive: int
    wrapper: int
    well_known: int
    list: ListOf
    map: MapOf
    message: str


class ListOf(Message):
    """The type of a list."""

    element: Type


class MapOf(Message):
    """The type of a map."""

    value: Type


class Expr(Message):
    """One node; `HasField` tells which kind it is."""

    id: int
    constant: Constant
    ident: Ident
    select: Select
    call: Call
    list: List
    struct: Struct
    comprehension: Comprehension


class Constant(Message):
    """A literal."""

    bool_value: bool
    int64_value: int
    uint64_value: int
    double_value: float
    string_value: str
    bytes_value: bytes


class Ident(Message):
    """A name."""

    name: str


class Select(Message):
    """A field of an operand; `test_only` if the expression only tests its presence."""

    operand: Expr
    field: str
    test_only: bool


class Call(Message):
    """A function or an operator."""

    target: Expr
    function: str
    args: _Exprs


class List(Message):
    """A list literal."""

    elements: _Exprs


class Struct(Message):
    """A message or map literal."""

    entries: Sequence[Entry]


class Entry(Message):
    """One entry of a `Struct`; the name of a message field is not a node."""

    key: Expr
    value: Expr


class Comprehension(Message):
    """The expansion of the macros `all`, `exists`, `filter` and `map`: a loop over a range with an accumulator."""

    iter_var: str
    iter_range: Expr
    accu_var: str
    accu_init: Expr
    loop_condition: Expr
    loop_step: Expr
    result: Expr


class _Exprs(Sequence[Expr]):
    def add(self) -> Expr:
        raise NotImplementedError


class _Reference(Message):
    name: str


class _ReferenceOf(Message):
    key: int
    value: _Reference


class _TypeOf(Message):
    key: int
    value: Type


class _Checked(Message):
    references: Sequence[_ReferenceOf]
    types: Sequence[_TypeOf]
    expr: Expr


class Tree:
    """The nodes of an expression, with the type of each and the names that some of them refer to, by id."""

    def __init__(self, serialized: bytes) -> None:
        self._any = AnyMessage.FromString(serialized)
        self._checked = cast(_Checked, _CLASSES["Checked"].FromString(self._any.value))
        self.root = self._checked.expr
        self.types: Mapping[int, Type] = {entry.key: entry.value for entry in self._checked.types}
        self.names: Mapping[int, str] = {entry.key: entry.value.name for entry in self._checked.references}
        self._newest = max((node.id for node in self.nodes()), default=0)

    def serialized(self) -> bytes:
        """The tree in the form that the engine imports."""
        self._any.value = self._checked.SerializeToString()
        return self._any.SerializeToString()

    def rename(self, names: Mapping[str, str]) -> bool:
        """Gives variables other names. Returns whether there were any."""
        changed = False
        for reference in self._checked.references:
            if reference.value.name in names:
                reference.value.name = names[reference.value.name]
                changed = True
        for node in self.nodes() if changed else ():
            if node.HasField("ident"):
                node.ident.name = names.get(node.ident.name, node.ident.name)
            elif node.HasField("comprehension"):
                loop = node.comprehension
                loop.iter_var = names.get(loop.iter_var, loop.iter_var)
        self.names = {entry.key: entry.value.name for entry in self._checked.references}
        return changed

    def nodes(self) -> Iterator[Expr]:
        """All nodes, children before parents. A qualified name is one node."""
        found, waiting = [], [self.root]
        while waiting:
            node = waiting.pop()
            found.append(node)
            if node.id not in self.names or not node.HasField("select"):
                waiting += _below(node)
        return reversed(found)

    def new(self, node: Expr) -> Expr:
        """Gives a new node an id of its own."""
        self._newest += 1
        node.id = self._newest
        return node

    def replace(self, node: Expr) -> Expr:
        """Empties a node, so that another can take its place. Returns the previous content."""
        before = cast(Expr, _CLASSES["Expr"]())
        before.CopyFrom(node)
        node.Clear()
        self.new(node)
        return before


def _below(node: Expr) -> Iterator[Expr]:
    if node.HasField("select"):
        yield node.select.operand
    elif node.HasField("call"):
        if node.call.HasField("target"):
            yield node.call.target
        yield from node.call.args
    elif node.HasField("list"):
        yield from node.list.elements
    elif node.HasField("struct"):
        for entry in node.struct.entries:
            if entry.HasField("key"):
                yield entry.key
            yield entry.value
    elif node.HasField("comprehension"):
        loop = node.comprehension
        yield from (loop.iter_range, loop.accu_init, loop.loop_condition, loop.loop_step, loop.result)


def _classes() -> dict[str, type[Message]]:
    package = "handrail.syntax"
    file = FileDescriptorProto(name="handrail/syntax.proto", package=package, syntax="proto2")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for declared in fields.split():
            field_name, _, numbered = declared.partition("=")
            number, _, spelled = numbered.partition(":")
            kind = spelled.removeprefix("*")
            field = message.field.add(name=field_name, number=int(number))
            field.label = (
                FieldDescriptorProto.LABEL_OPTIONAL if kind == spelled else FieldDescriptorProto.LABEL_REPEATED
            )
            if kind in _SCALARS:
                field.type = _SCALARS[kind]
            else:
                field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{package}.{kind}"
    pool = DescriptorPool()
    pool.Add(file)
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in _FIELDS}


_CLASSES = _classes()
