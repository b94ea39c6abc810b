"""The subcommands of `handrail`: one module each. Its `fill` adds the arguments to its parser."""
