"""Timing of the work of a stage beside a plain version of it, in the same run."""
