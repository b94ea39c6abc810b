"""Charts of templates: nodes and edges, a layered layout, and output as Mermaid or SVG."""
