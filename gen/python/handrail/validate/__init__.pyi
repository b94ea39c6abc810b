from handrail.validate import validate_pb2 as validate_pb2
