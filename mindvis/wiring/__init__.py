"""From settings to objects: the only place that knows both the settings and everything they choose."""
