"""The checks: each examines one installed distribution. They know no flow, no event and no agent."""
