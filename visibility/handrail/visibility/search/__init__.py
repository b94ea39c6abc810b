"""Finding flows: pages of a list, each within a bounded time."""
