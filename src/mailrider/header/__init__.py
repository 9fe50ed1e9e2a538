"""What stands in header fields: addresses, encoded words, and fields of our own (RFC 5322, RFC 2047)."""
