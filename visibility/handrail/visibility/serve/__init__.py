"""The gRPC service that answers coordinators' questions from the index.

`selection` turns a request into a condition. `flows`, `approvals`, `divergences` and `counts` have the statements, and
turn rows into messages. `listing` makes pages, `snapshot` reads the index. No answer changes it.
"""
