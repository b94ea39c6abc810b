"""Drawing a template: its parts as nodes and edges, a layered layout, and Mermaid or SVG of it."""
