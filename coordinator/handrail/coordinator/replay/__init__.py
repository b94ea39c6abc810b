"""What-if: replays recorded flows under a changed template, without any write.

`replay_job` reads flows from the stream, `flow_assembly` sorts the messages into whole flows, and `processes` replays
them outside of the coordinator's own process.
"""
