"""What flows were and are, found in milliseconds: an archive of their messages, and an index of flows in SQL.

It follows the broker and takes no part: if it stops, nothing waits for it. The index is disposable: it is computed anew
from the archive and the stream FLOW.
"""
