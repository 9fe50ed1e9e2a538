"""X.509: what a certificate chain proves, decided without a socket or a clock (RFC 5280, RFC 9525).

`verify` judges a chain by trusted roots (PKIX), `describe` shows a chain to people, `cache` remembers verdicts. The
only package that knows OpenSSL and cryptography; `dane` stands on it.
"""
