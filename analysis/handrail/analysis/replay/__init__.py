"""What-if: runs the gates and rules of a template over flows recorded under another version. Pure.

A caller

1. makes a `replayer.Replayer` with the changed template, all stored versions of its flow type, and a time span;
2. passes it whole flows: all messages of a flow, in stream order, as `stored.Stored`;
3. adds the tallies if it splits the flows over processes: `Stored` and `Tally` are plain values for that.

`docs/what-if.md` says what is replayed and what is not.
"""
