"""Lists of flows, approvals, divergences and quarantined messages.

They scan the streams: results are exact, and latency grows with the size of the stream. `bulk_read` reads large parts
of a stream for other packages, too.
"""
