"""A new project: its files, and what they are made from."""
