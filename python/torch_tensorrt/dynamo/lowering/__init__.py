"""Users' own passes over the graph."""
