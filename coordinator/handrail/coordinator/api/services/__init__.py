"""The gRPC services: each method reads or records through the parts below it, and shows what came of it."""
