"""The gRPC Python generator of grpcio-tools as a protoc plugin, which is the only form in which buf takes it.

Reads a CodeGeneratorRequest from standard input and writes the CodeGeneratorResponse to standard output. Files
without a service are left out: grpcio-tools would write an empty module for each.
"""

import sys
import tempfile
from pathlib import Path

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc


def generate(request: CodeGeneratorRequest) -> CodeGeneratorResponse:
    """Generate a `_pb2_grpc.py` for each requested file that has a service."""
    response = CodeGeneratorResponse(supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL)
    requested = set(request.file_to_generate)
    with_service = [file.name for file in request.proto_file if file.service and file.name in requested]
    if not with_service:
        return response
    with tempfile.TemporaryDirectory() as scratch:
        descriptors = Path(scratch, "request.binpb")
        descriptors.write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
        output = Path(scratch, "output")
        output.mkdir()
        options = [f"--descriptor_set_in={descriptors}", f"--grpc_python_out={output}"]
        if protoc.main(["protoc", *options, *with_service]) != 0:
            response.error = "grpcio-tools failed; its message is on standard error"
            return response
        for path in sorted(output.rglob("*.py")):
            response.file.add(name=path.relative_to(output).as_posix(), content=path.read_text("utf-8"))
    return response


if __name__ == "__main__":
    answer = generate(CodeGeneratorRequest.FromString(sys.stdin.buffer.read()))
    sys.stdout.buffer.write(answer.SerializeToString())
