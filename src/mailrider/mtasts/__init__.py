"""MTA-STS without I/O: the TXT record, the policy file, its MX patterns (RFC 8461)."""
