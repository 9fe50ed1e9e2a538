"""Recipients by next hop, and those that need none."""

from __future__ import annotations

from mailrider.delivery.message import route
from mailrider.model.address import NULL_PATH, Mailbox
from mailrider.model.domain import AddressLiteral, Domain
from mailrider.model.envelope import Envelope, Recipient


def envelope(*recipients: str, quarantined: bool = False) -> Envelope:
    mailboxes = (Recipient(Mailbox.parse(text)) for text in recipients)
    return Envelope(NULL_PATH, tuple(mailboxes), quarantined=quarantined)


def test_recipients_of_one_domain_go_together_whatever_its_case_or_form() -> None:
    plan = route(
        envelope("a@example.org", "b@bücher.example", "c@EXAMPLE.org", "d@xn--bcher-kva.example", "e@BÜCHER.example")
    )
    assert plan.groups == {Domain("example.org"): [0, 2], Domain("xn--bcher-kva.example"): [1, 3, 4]}
    assert plan.settled == {}


def test_an_address_literal_is_a_next_hop_of_its_own() -> None:
    plan = route(envelope("a@[192.0.2.1]", "b@[IPv6:2001:db8::1]", "c@[192.0.2.1]"))
    assert list(plan.groups.values()) == [[0, 2], [1]]
    assert all(isinstance(next_hop, AddressLiteral) for next_hop in plan.groups)


def test_a_recipient_without_a_domain_fails_and_the_others_go_on() -> None:
    plan = route(envelope("postmaster", "a@example.org"))
    assert {index: (each.status, str(each.reply.enhanced)) for index, each in plan.settled.items()} == {
        0: ("failed", "5.1.1")
    }
    assert plan.groups == {Domain("example.org"): [1]}


def test_a_quarantined_message_goes_nowhere() -> None:
    plan = route(envelope("a@example.org", "postmaster", "b@[192.0.2.1]", quarantined=True))
    assert plan.groups == {}
    assert {(each.reply.code, str(each.reply.enhanced)) for each in plan.settled.values()} == {(550, "5.7.0")}
    assert len(plan.settled) == 3
