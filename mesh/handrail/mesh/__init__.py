"""What agents and the coordinator share: messages, templates, flows, the broker, settings."""
