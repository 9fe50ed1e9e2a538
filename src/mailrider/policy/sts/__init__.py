"""MTA-STS at work: where a policy comes from, how it is kept, and what it demands (RFC 8461)."""
