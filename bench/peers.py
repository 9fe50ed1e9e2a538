"""Placeholder: the peers to measure against come here."""
