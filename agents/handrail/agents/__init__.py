"""The SDK to write an agent with: handlers for events, undo handlers, and sources that start flows.

from handrail.agents import Agent, Context

agent = Agent("enrichment")

@agent.on(ChargebackReceived)
async def enrich(event: ChargebackReceived, ctx: Context) -> ChargebackEnriched: ...

if __name__ == "__main__":
    agent.run()
"""

from handrail.agents.agent import Agent
from handrail.agents.context import Context
from handrail.agents.declaration import StartedFlow
from handrail.agents.errors import AgentNotRunning, DeclarationError, NonRetryable, OutcomeUnknown
from handrail.agents.invoke import QuickRetries

__all__ = [
    "Agent",
    "AgentNotRunning",
    "Context",
    "DeclarationError",
    "NonRetryable",
    "OutcomeUnknown",
    "QuickRetries",
    "StartedFlow",
]
