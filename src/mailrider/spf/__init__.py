"""SPF (RFC 7208): whether a domain lets an address send for it."""
