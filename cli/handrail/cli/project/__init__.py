"""A new project: its files, and the templates they are created from."""
