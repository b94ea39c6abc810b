"""Server reflection: the product's own contracts, with comments, and the contracts of the templates stored now.

A client that receives a message of a flow type can look up its contract by name, even if the template was stored a
moment ago. grpcio's own servicer reads one fixed descriptor pool and has only v1alpha; v1 is the same wire format under
another name (https://github.com/grpc/grpc/issues/38576).
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from importlib.resources import files
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import Default
from google.rpc import error_details_pb2, status_pb2
from grpc_channelz.v1 import channelz_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from handrail.mesh.contracts import json_names
from handrail.mesh.errors import HandrailError
from handrail.v1.error_reason_pb2 import ErrorReason

SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
"""The service names under which reflection is served."""

MAX_ANSWER_BYTES = 8 << 20
"""Bytes that one call may be answered with. The largest of the API's services takes 400,000 with its imports."""

_Request = reflection_pb2.ServerReflectionRequest
_Response = reflection_pb2.ServerReflectionResponse
_NOT_FOUND = grpc.StatusCode.NOT_FOUND.value[0]
_INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT.value[0]


class Files:
    """The files of one descriptor set, indexed by name and by the symbols they define."""

    def __init__(self, protos: Iterable[FileDescriptorProto]) -> None:
        self._files: dict[str, FileDescriptorProto] = {}
        self._serialized: dict[str, bytes] = {}
        self._symbols: dict[str, str] = {}
        self._extensions: dict[tuple[str, int], str] = {}
        for proto in protos:
            json_names.fill_in(proto.message_type)
            self._files[proto.name] = proto
            self._serialized[proto.name] = proto.SerializeToString()
            self._symbols.update(dict.fromkeys(_symbols(proto), proto.name))
            for extension in proto.extension:
                self._extensions[extension.extendee.lstrip("."), extension.number] = proto.name

    def by_name(self, name: str) -> list[bytes]:
        """Returns a file with all its imports, serialized, the file first; empty if no file has this name."""
        found: dict[str, bytes] = {}
        waiting = [name]
        while waiting:
            wanted = waiting.pop(0)
            proto = self._files.get(wanted)
            if proto is not None and wanted not in found:
                found[wanted] = self._serialized[wanted]
                waiting += proto.dependency
        return list(found.values())

    def by_symbol(self, symbol: str) -> list[bytes]:
        """Returns the file that defines a symbol, with all its imports."""
        return self.by_name(self._symbols.get(symbol, ""))

    def by_extension(self, extendee: str, number: int) -> list[bytes]:
        """Returns the file that extends a message with this field number, with all its imports."""
        return self.by_name(self._extensions.get((extendee, number), ""))

    def extension_numbers(self, extendee: str) -> list[int]:
        """Returns the numbers of all extensions of a message."""
        return sorted(number for name, number in self._extensions if name == extendee)


def own_files() -> dict[str, FileDescriptorProto]:
    """Returns the files of every service here and of its error details; those of handrail.v1 include comments."""
    found: dict[str, FileDescriptorProto] = {}
    for module in (health_pb2, reflection_pb2, channelz_pb2, status_pb2, error_details_pb2):
        _add_with_imports(found, module.DESCRIPTOR.name)
    v1 = _as_v1(found[reflection_pb2.DESCRIPTOR.name])
    found[v1.name] = v1
    shipped = files("handrail.v1").joinpath("descriptors.binpb").read_bytes()
    found.update((file.name, file) for file in FileDescriptorSet.FromString(shipped).file)
    return found


class Reflection:
    """The reflection servicer. `stored` returns the descriptor sets of the stored templates now, preferred first."""

    def __init__(self, services: Iterable[str], stored: Callable[[], Iterable[bytes]]) -> None:
        self._services = sorted(services)
        self._own = own_files()
        self._files = Files(self._own.values())
        self._stored = stored
        self._learned: dict[bytes, Files] = {}

    def handlers(self) -> list[grpc.GenericRpcHandler[Any, Any]]:
        """Returns the handlers that serve reflection under both names."""
        handler = grpc.stream_stream_rpc_method_handler(
            self.answer_all,
            request_deserializer=_Request.FromString,
            response_serializer=_Response.SerializeToString,
        )
        return [grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler}) for name in SERVICES]

    async def answer_all(
        self, requests: AsyncIterable[_Request], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[_Response]:
        """Serves the only RPC: a stream of requests, one response each. Raises LIMIT_EXCEEDED."""
        left = MAX_ANSWER_BYTES
        async for request in requests:
            response = self.answer(request)
            left -= response.ByteSize()
            if left < 0:
                text = f"a call of reflection is answered with at most {MAX_ANSWER_BYTES} bytes: open another one"
                raise HandrailError(ErrorReason.ERROR_REASON_LIMIT_EXCEEDED, text)
            yield response

    def answer(self, request: _Request) -> _Response:
        """Answers one request."""
        response = _Response(valid_host=request.host, original_request=request)
        match request.WhichOneof("message_request"):
            case "list_services":
                for name in self._services:
                    response.list_services_response.service.add(name=name)
            case "file_by_filename":
                self._find(response, lambda known: known.by_name(request.file_by_filename))
            case "file_containing_symbol":
                self._find(response, lambda known: known.by_symbol(request.file_containing_symbol))
            case "file_containing_extension":
                wanted = request.file_containing_extension
                self._find(response, lambda known: known.by_extension(wanted.containing_type, wanted.extension_number))
            case "all_extension_numbers_of_type":
                extendee = request.all_extension_numbers_of_type
                numbers = {number for known in self._known() for number in known.extension_numbers(extendee)}
                response.all_extension_numbers_response.base_type_name = extendee
                response.all_extension_numbers_response.extension_number.extend(sorted(numbers))
            case _:
                response.error_response.error_code = _INVALID_ARGUMENT
                response.error_response.error_message = "the request is empty"
        return response

    def _find(self, response: _Response, search: Callable[[Files], list[bytes]]) -> None:
        # Each response uses one set only: two versions of a contract may define the same file differently.
        for known in self._known():
            found = search(known)
            if found:
                response.file_descriptor_response.file_descriptor_proto.extend(found)
                return
        response.error_response.error_code = _NOT_FOUND
        response.error_response.error_message = "neither the API nor a stored template defines it"

    def _known(self) -> Iterable[Files]:
        yield self._files
        for descriptor_set in self._stored():
            learned = self._learned.get(descriptor_set)
            if learned is None:
                learned = self._learned[descriptor_set] = self._learn(descriptor_set)
            yield learned

    def _learn(self, descriptor_set: bytes) -> Files:
        """Indexes a stored set; a file that is also one of ours is replaced by ours."""
        stored = {file.name: file for file in FileDescriptorSet.FromString(descriptor_set).file}
        return Files((stored | {name: self._own[name] for name in stored.keys() & self._own.keys()}).values())


def _add_with_imports(found: dict[str, FileDescriptorProto], name: str) -> None:
    if name in found:
        return
    proto = FileDescriptorProto()
    Default().FindFileByName(name).CopyToProto(proto)
    found[name] = proto
    for imported in proto.dependency:
        _add_with_imports(found, imported)


def _as_v1(alpha: FileDescriptorProto) -> FileDescriptorProto:
    """Returns the contract of reflection v1: v1alpha's under the new package, otherwise unchanged (gRFC A1)."""
    proto = FileDescriptorProto()
    proto.CopyFrom(alpha)
    proto.name = "grpc/reflection/v1/reflection.proto"
    proto.package = "grpc.reflection.v1"
    for message in proto.message_type:
        for field in message.field:
            field.type_name = field.type_name.replace(".grpc.reflection.v1alpha.", ".grpc.reflection.v1.")
    for service in proto.service:
        for method in service.method:
            method.input_type = method.input_type.replace(".v1alpha.", ".v1.")
            method.output_type = method.output_type.replace(".v1alpha.", ".v1.")
    return proto


def _symbols(proto: FileDescriptorProto) -> Iterable[str]:
    prefix = f"{proto.package}." if proto.package else ""
    for message in proto.message_type:
        yield from _message_symbols(prefix, message)
    for enum in proto.enum_type:
        yield prefix + enum.name
        # Enum values are siblings of the enum, not its children.
        yield from (prefix + value.name for value in enum.value)
    for service in proto.service:
        yield prefix + service.name
        yield from (f"{prefix}{service.name}.{method.name}" for method in service.method)
    yield from (prefix + extension.name for extension in proto.extension)


def _message_symbols(prefix: str, message: DescriptorProto) -> Iterable[str]:
    name = prefix + message.name
    yield name
    inner = f"{name}."
    yield from (inner + field.name for field in message.field)
    yield from (inner + oneof.name for oneof in message.oneof_decl)
    for enum in message.enum_type:
        yield inner + enum.name
        yield from (inner + value.name for value in enum.value)
    for nested in message.nested_type:
        yield from _message_symbols(inner, nested)
