"""The pages of templates: versions, graph, what changed in sentences, and the log of activations."""
