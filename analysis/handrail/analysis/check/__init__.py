"""The flow type-check: finds, before a template is stored, what would strand a flow or bypass a gate."""
