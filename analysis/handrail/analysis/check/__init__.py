"""The flow type-check: what would strand a flow, bypass a gate or surprise people, found before a template is stored."""
