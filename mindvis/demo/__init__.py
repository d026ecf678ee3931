"""The small label-to-image model and classifier behind the demo: how they were trained, and where they are kept."""
