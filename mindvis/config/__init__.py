"""Settings: their dataclasses, loading them (defaults <- YAML <- key=value), and the command line."""
