"""DomainKeys Identified Mail: signatures (RFC 6376, RFC 8463), their keys, and how they are configured."""
