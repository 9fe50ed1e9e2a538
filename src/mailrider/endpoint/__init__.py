"""Doors for mail: what listens, and where a message goes from there."""
