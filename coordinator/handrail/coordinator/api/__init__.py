"""The gRPC face of the coordinator."""
