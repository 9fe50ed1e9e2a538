"""Delivery status notifications (RFC 3464, RFC 6533): for a person first, for machines second."""
