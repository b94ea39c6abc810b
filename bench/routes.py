"""Who publishes what next in the chain, without contracts, state, time-outs or gates."""

STREAM = "CHAIN"

ROUTES = {
    "detect": {
        "happy.start": "happy.detected",
        "compensated.start": "compensated.detected",
        "compensated.unenriched": "compensated.done",
        "approved.start": "approved.detected",
    },
    "enrich": {
        "happy.detected": "happy.enriched",
        "compensated.detected": "compensated.enriched",
        "compensated.failed": "compensated.unenriched",
    },
    "notify": {
        "happy.enriched": "happy.done",
        "compensated.enriched": "compensated.failed",
        "approved.yes": "approved.done",
    },
}
"""Maps an agent to what it publishes for each subject that it consumes."""
