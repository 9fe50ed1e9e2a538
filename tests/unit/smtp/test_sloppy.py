"""What printers, scanners and scripts say on submission, and what of it is taken nowhere else."""

from __future__ import annotations

import pytest

from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.domain import AddressLiteral, Domain
from mailrider.smtp.capabilities import FULL_OFFER
from mailrider.smtp.commands import Command, Ehlo, Helo, Mail, Rcpt
from mailrider.smtp.parse import UNKNOWN, CommandError, parse_command
from mailrider.smtp.server import ServerMachine

ORIGIN = Domain("example.org")
SENDER = ReversePath.parse("a@x.test")

SLOPPY: dict[str, Command] = {
    "MAIL FROM: a@x.test": Mail(SENDER),
    "MAIL FROM:a@x.test": Mail(SENDER),
    "MAIL FROM:a@x.test SIZE=10": Mail(SENDER, size=10),
    "MAIL FROM:  <a@x.test>": Mail(SENDER),
    "MAIL FROM:  <a@x.test>  SIZE=10": Mail(SENDER, size=10),
    "mail from:< a@x.test >": Mail(SENDER),
    "MAIL FROM:<scanner>": Mail(ReversePath.parse("scanner@example.org")),
    "MAIL FROM:scanner": Mail(ReversePath.parse("scanner@example.org")),
    "MAIL FROM:<>": Mail(ReversePath.parse("")),
    # https://github.com/KumoCorp/kumomta/issues/77
    "MAIL FROM:<ilo.@x.test>": Mail(ReversePath.parse('"ilo."@x.test')),
    "RCPT TO:a..b@x.test": Rcpt(Mailbox("a..b", Domain("x.test"))),
    "RCPT TO: b@x.test": Rcpt(Mailbox.parse("b@x.test")),
    "RCPT TO:<root>": Rcpt(Mailbox.parse("root@example.org")),
    "RCPT TO:<Postmaster>": Rcpt(Mailbox.parse("Postmaster@example.org")),
    'RCPT TO:"a b"@x.test': Rcpt(Mailbox("a b", Domain("x.test"))),
    "EHLO JOHN'S-PC": Ehlo(UNKNOWN),
    "EHLO M\u00dcLLER-PC": Ehlo(Domain("xn--mller-pc-65a")),
    "EHLO": Ehlo(UNKNOWN),
    "HELO": Helo(UNKNOWN),
    "EHLO my pc": Ehlo(UNKNOWN),
    "EHLO [fe80::1%en0]": Ehlo(UNKNOWN),
    "EHLO printer.1": Ehlo(UNKNOWN),
    "EHLO [192.0.2.1]": Ehlo(AddressLiteral.parse("[192.0.2.1]")),
    "EHLO client.example": Ehlo(Domain("client.example")),
}


@pytest.mark.parametrize("line", SLOPPY)
def test_what_sloppy_clients_say_is_understood_on_submission(line: str) -> None:
    assert parse_command(line.encode(), ORIGIN) == SLOPPY[line]


def test_a_name_that_is_no_utf8_is_unknown_too() -> None:
    assert parse_command(b"EHLO M\xdcLLER-PC", ORIGIN) == Ehlo(UNKNOWN)
    with pytest.raises(CommandError, match="neither ASCII nor UTF-8"):
        parse_command(b"MAIL FROM:<\xdc@x.test>", ORIGIN)


@pytest.mark.parametrize(
    "line",
    [
        "MAIL FROM: a@x.test",
        "MAIL FROM:  <a@x.test>",
        "MAIL FROM:<scanner>",
        "RCPT TO:b@x.test",
        "RCPT TO:<root>",
        "RCPT TO:<example.org>",
        "EHLO JOHN'S-PC",
        "EHLO",
        "EHLO printer.1",
    ],
)
def test_beyond_submission_it_is_refused(line: str) -> None:
    with pytest.raises(CommandError):
        parse_command(line.encode())


@pytest.mark.parametrize(
    "line",
    [
        "MAIL FROM:",
        "MAIL FROM: a@x.test b@x.test",
        "MAIL FROM:Bob <a@x.test>",
        "MAIL FROM:<a@x.test",
        "MAIL FROM:a@x.test>",
        "MAIL TO:a@x.test",
        "RCPT TO:",
        "RCPT TO:<>",
        "RCPT TO:a@",
        "EHLO a\x00b",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused_there_too(line: str) -> None:
    with pytest.raises(CommandError):
        parse_command(line.encode(), ORIGIN)


def test_a_machine_with_an_origin_understands_it() -> None:
    machine = ServerMachine(FULL_OFFER, origin=ORIGIN)
    machine.next_event()
    machine.receive(b"MAIL FROM:scanner\r\n")
    assert machine.next_event() is None  # the greeting comes first


@pytest.mark.parametrize("name", ["postmaster", "POSTMASTER", "Postmaster"])
def test_the_postmaster_needs_no_domain_anywhere(name: str) -> None:
    assert parse_command(f"RCPT TO:<{name}>".encode()) == Rcpt(Mailbox(name, None))
