"""Delivery: from an envelope to the recipients' own mail servers."""
