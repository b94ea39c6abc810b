"""Routes the deliveries of a flow to one replica, its owner, which has the flow in hand.

The broker hands a flow's messages to any replica. Without routing each replica would read the flow for itself. Routing
only saves work: a delivery that gets lost between replicas comes again after the broker's ack wait, and two replicas
that both take a flow for theirs are kept apart by the expected sequence of each append.
"""
