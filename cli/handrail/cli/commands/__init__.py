"""The subcommands of `handrail`: one module each, with `fill`, which gives its parser the arguments."""
