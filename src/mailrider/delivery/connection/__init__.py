"""Connections: opened, talked over, pooled."""
