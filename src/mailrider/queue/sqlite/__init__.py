"""The queue's store in SQLite."""
