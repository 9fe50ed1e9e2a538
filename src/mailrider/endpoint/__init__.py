"""Endpoints: what listens for mail, and where a message goes from there."""
