"""TLS reporting (RFC 8460): what was seen of recipients' TLS, counted, kept, and sent to those who ask for it."""
