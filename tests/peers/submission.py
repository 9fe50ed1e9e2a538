"""A second opinion: a plain client, not ours, that hands a message to a receiver."""

from __future__ import annotations

import smtplib


def send(address: str, port: int, message: bytes, *recipients: str) -> None:
    """Deliver with Python's smtplib; raises if the receiver refuses anything."""
    with smtplib.SMTP(address, port, "client.example.org", timeout=200) as client:
        client.ehlo()
        utf8 = ["SMTPUTF8"] if not "".join(recipients).isascii() else []
        refused = client.sendmail("sender@example.org", recipients, message, mail_options=["BODY=8BITMIME", *utf8])
        assert not refused
