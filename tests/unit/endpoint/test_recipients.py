"""Whom a recipient means, and which of them only a friend may name."""

from __future__ import annotations

import pytest

from mailrider.endpoint.transaction import distinct, is_route, postmaster_of
from mailrider.model.address import Mailbox
from mailrider.model.domain import Domain
from mailrider.model.envelope import Notify, Recipient
from mailrider.settings.pipeline import PipelineSettings, RouteSettings, TargetRef

HOST = Domain("mx.example.org")
TAKE, REFUSE = RouteSettings(deliver_to=TargetRef("q")), RouteSettings(reject="550 5.7.1 no")


@pytest.mark.parametrize("address", ["a%b@x.test", "a!b@x.test", '"a@b"@x.test'])
def test_a_local_part_may_hide_a_route(address: str) -> None:
    assert is_route(Mailbox.parse(address))
    assert not is_route(Mailbox.parse("a+b=c@x.test"))


def test_who_is_named_twice_is_one_recipient() -> None:
    first = Recipient(Mailbox.parse("b@x.test"), Notify.NEVER)
    again, other = Recipient(Mailbox.parse("b@X.TEST")), Recipient(Mailbox.parse("B@x.test"))
    assert distinct((first, again, other, again)) == (first, other)
    assert distinct((first,)) == (first,)


@pytest.mark.parametrize(
    ("pipeline", "expected"),
    [
        (PipelineSettings(deliver_to=TargetRef("q")), "postmaster@mx.example.org"),
        (PipelineSettings(reject="550 5.7.1 no"), "postmaster@mx.example.org"),
        (PipelineSettings(destination=[(["example.org"], TAKE)]), "postmaster@example.org"),
        (
            PipelineSettings(destination=[(["a.test"], REFUSE), (["b.test"], TAKE)]),
            "postmaster@b.test",
        ),
        (PipelineSettings(destination=[(["x@[192.0.2.1]", "c.test"], TAKE)]), "postmaster@c.test"),
        (PipelineSettings(destination=[(["postmaster", "example.org"], TAKE)]), "postmaster"),
        (PipelineSettings(destination=[(["postmaster"], REFUSE), (["a.test"], TAKE)]), "postmaster@a.test"),
    ],
)
def test_the_postmaster_is_that_of_what_we_take(pipeline: PipelineSettings, expected: str) -> None:
    assert str(postmaster_of(pipeline, HOST)) == expected
