"""The inbox of approvals: what waits for votes, and whose."""
