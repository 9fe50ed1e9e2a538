"""TLS reporting without I/O: the TXT record, the report, and what counts as a finding (RFC 8460)."""
