"""A simulated experiment in the published layouts, and the small models of the demo."""
