"""Trackers that others make, told as observers (`launch.observers`); each module needs the package of its name."""
