"""The validator's rules, `buf/validate/validate.proto`, for generated code: `validate_pb2`.

A process can hold one definition of this file. If the environment has a module `buf.validate.validate_pb2`, it is
used; otherwise the one beside this file is.
"""

try:
    from buf.validate import validate_pb2
except ImportError:
    from handrail.validate import validate_pb2

__all__ = ["validate_pb2"]
