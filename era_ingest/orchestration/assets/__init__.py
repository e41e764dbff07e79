"""The assets of the graph, by what they make."""
