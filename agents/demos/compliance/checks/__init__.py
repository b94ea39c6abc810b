"""The checks: each looks at one distribution as it is installed. They know no flow, no event and no agent."""
