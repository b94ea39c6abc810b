"""The subcommands of `handrail`: one module each, with `add`, which adds its parser."""
