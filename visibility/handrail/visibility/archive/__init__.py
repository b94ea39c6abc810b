"""The archive: all messages of a stream, in order, in sealed segments on a disk (docs/archive.md).

What was purged from the stream is only here. So nothing counts as archived before it was read back from the disk, and
nothing is served that differs from what was sealed.
"""
