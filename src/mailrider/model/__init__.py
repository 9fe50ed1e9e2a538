"""Values: what mail delivery talks about. Frozen, no I/O; making one validates it."""
