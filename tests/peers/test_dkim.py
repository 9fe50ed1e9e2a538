"""DKIM signatures verify with Debian's dkimpy, which none of us wrote."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from mailrider.clock import SystemClock
from mailrider.dkim.sign import DKIMSigning, Signer
from mailrider.model.domain import Domain
from mailrider.model.event import discard
from mailrider.signing.keys import dns_record
from mailrider.smtp.content import Content
from mailrider.x509.key_kind import KeyKind
from mailrider.x509.signing import SigningKey

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

EXAMPLE = Domain("example.org")
KEYS = {"rsa": SigningKey.make(KeyKind.RSA2048), "ed": SigningKey.make(KeyKind.ED25519)}

MESSAGES = {
    "plain": b"From: a@example.org\r\nTo: b@example.net\r\nSubject: hello\r\n\r\nHello.\r\n",
    "folded, repeated, odd white space": b"from: A\r\n  <a@example.org> \r\nTo:x@example.net\r\nTo:  y@example.net\r\n"
    b"Subject:  a \t b\r\n\t \r\n c\r\nX-Empty:\r\n\r\n a  b\t\r\n\t\r\n\r\nc \r\n \r\n\r\n",
    "no body": b"From: a@example.org\r\n",
    "empty body": b"From: a@example.org\r\n\r\n",
    "only empty lines": b"From: a@example.org\r\n\r\n\r\n \r\n\r\n",
    "bare line ends": b"From: a@example.org\nSubject: x\n\nbare\n\rboth\n.\nno end",
    "dots": b"From: a@example.org\r\n\r\n.\r\n..\r\n.a\r\n",
    "UTF-8": "From: Ä <a@example.org>\r\nSubject: grüße\r\n\r\nHällo\r\n".encode(),
    "large": b"From: a@example.org\r\n\r\n" + b" some  text\there \r\n" * 60_000 + b"\r\n" * 1000,
    "one long line": b"From: a@example.org\r\n\r\n" + b"x \t" * 200_000,
}
TAMPERED = {
    "body": (b"Hello", b"Hallo"),
    "subject": (b"Subject: hello", b"Subject: hell0"),
    "another From": (b"From:", b"From: evil@example.com\r\nFrom:"),
    "another Subject": (b"Subject: hello", b"Subject: evil\r\nSubject: hello"),
    "a Reply-To": (b"Subject: hello", b"Reply-To: evil@example.com\r\nSubject: hello"),
}

# How many signatures there are, and whether each is right, by records in a file that stands for DNS.
VERIFIER = """
import sys, dkim
records = dict(line.split(" ", 1) for line in open(sys.argv[1]).read().splitlines())
message = dkim.DKIM(open(sys.argv[2], "rb").read())
for index in range(sum(name.lower() == b"dkim-signature" for name, _ in message.headers)):
    try:
        print(message.verify(index, lambda name, **_: records[name.decode()].encode()))
    except dkim.ValidationError:
        print(False)
"""


def verdicts(message: bytes, tmp_path: Path, published: Sequence[str] = ()) -> list[str]:
    """What it says of each signature; `published` are the lines in DNS, without them those of `KEYS`.

    It knows no list of services (RFC 6376 3.6.1), which the record of an Ed25519 key has for TLS reports, so that is
    left out here: where it verifies, the RSA signature counts.
    """
    (tmp_path / "message").write_bytes(message)
    lines = published or [dns_record(EXAMPLE, selector, key) for selector, key in KEYS.items()]
    lines = [line.replace("s=email:tlsrpt; ", "") for line in lines]
    records = [f"{line.split()[0]} {''.join(line.split(chr(34))[1::2])}" for line in lines]
    (tmp_path / "records").write_text("\n".join(records))
    command = ["/usr/bin/python3", "-W", "ignore", "-c", VERIFIER, str(tmp_path / "records"), str(tmp_path / "message")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


async def signed(message: bytes) -> bytes:
    signing = DKIMSigning([Signer(EXAMPLE, each, key) for each, key in KEYS.items()], SystemClock(), discard)
    return b"".join((await signing.modify(Content.inspect(message))).chunks())


@pytest.mark.parametrize("name", MESSAGES)
async def test_another_program_verifies_what_we_sign(name: str, tmp_path: Path) -> None:
    assert verdicts(await signed(MESSAGES[name]), tmp_path) == ["True", "True"]


@pytest.mark.parametrize("name", TAMPERED)
async def test_what_was_changed_or_added_does_not_verify(name: str, tmp_path: Path) -> None:
    octets = await signed(MESSAGES["plain"])
    head, mark, rest = octets.rpartition(b"From: a@")
    changed = head + (mark + rest).replace(*TAMPERED[name], 1)
    assert changed != octets
    assert verdicts(changed, tmp_path) == ["False", "False"]
