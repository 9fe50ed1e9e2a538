"""SMTP's rules without I/O: bytes in, events out (RFC 5321 and its extensions)."""
