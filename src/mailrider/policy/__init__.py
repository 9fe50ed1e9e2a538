"""Policies: what a recipient domain, the operator and the sender demand of a connection, as data."""
