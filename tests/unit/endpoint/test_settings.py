"""Endpoints in the configuration: above all what would make an open relay of them."""

from __future__ import annotations

import re
from unittest.mock import ANY

import pytest

from mailrider.config import loads
from mailrider.endpoint.faults import weak_spots
from mailrider.endpoint.settings import EndpointSettings, SourceSettings, SubmissionSettings
from mailrider.errors import ConfigError
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.reply import Reply
from mailrider.settings.pipeline import TargetRef, decide
from tests.support.routes import pipeline_for

TARGETS = """hostname mx.example.org
target.remote out { }
target.queue world { target &out }
target.queue home { target &store }
target.lmtp store { host unix:///run/lmtp }
target.smtp smart { host tls://smtp.example.org:465 }
target.queue twice { target &world }
"""


def endpoint(text: str) -> EndpointSettings:
    configuration = loads(TARGETS + text)
    (found,) = configuration.endpoints
    assert isinstance(found.settings, EndpointSettings)
    return found.settings


def fault(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loads(TARGETS + text)
    (problem,) = caught.value.problems
    assert problem.line == TARGETS.count("\n") + 1
    return problem.message


@pytest.mark.parametrize(
    "text",
    [
        "submission tcp://127.0.0.1:587 tcp://[::1]:587 unix:///run/x { deliver_to &world }",
        "submission tls://0.0.0.0:465 { tls c k; auth users; deliver_to &world }",
        "submission tls://127.0.0.1:465 { tls c k; auth users; proxy_from 127.0.0.1/32; deliver_to &world }",
        "submission unix:///run/x { proxy_from 127.0.0.1/32; deliver_to &world }",
        "smtp tcp://127.0.0.1:25 { deliver_to &world }",
        "smtp unix:///run/x { deliver_to remote { } }",
        "smtp tcp://0.0.0.0:25 { deliver_to &home }",
        "smtp tcp://0.0.0.0:25 { destination example.org { deliver_to &world }; default_destination { reject } }",
        "smtp tcp://0.0.0.0:25 { source example.org { destination example.net { deliver_to &out } } }",
        "lmtp tcp://0.0.0.0:24 { deliver_to &store }",
    ],
)
def test_what_is_safe_is_accepted(text: str) -> None:
    assert endpoint(text.replace("; ", "\n").replace("{ ", "{\n").replace(" }", "\n}")).listen


@pytest.mark.parametrize(
    "text",
    [
        "submission tcp://0.0.0.0:587 { deliver_to &world }",
        "submission tcp://127.0.0.1:587 tcp://192.0.2.1:587 { deliver_to &world }",
        "smtp tcp://0.0.0.0:25 { deliver_to &world }",
        "smtp tcp://0.0.0.0:25 { deliver_to &out }",
        "smtp tcp://0.0.0.0:25 { deliver_to &twice }",
        "smtp tcp://0.0.0.0:25 { deliver_to &smart }",
        "smtp tcp://0.0.0.0:25 { deliver_to remote { } }",
        "smtp tcp://0.0.0.0:25 { deliver_to queue { target &out } }",
        "smtp tcp://0.0.0.0:25 { auth users; deliver_to &world }",
        "smtp tcp://[::]:25 { destination a.test { deliver_to &home }; default_destination { deliver_to &world } }",
        # Whoever claims to be of example.org would be let through.
        "smtp tcp://0.0.0.0:25 { source example.org { deliver_to &world } }",
        "smtp tcp://0.0.0.0:25 { default_source { deliver_to &world } }",
        "lmtp tcp://0.0.0.0:24 { deliver_to &world }",
        # Whoever reaches the proxy reaches loopback.
        "submission tcp://127.0.0.1:587 { proxy_from 127.0.0.1/32; deliver_to &world }",
        "smtp tcp://127.0.0.1:25 { proxy_from 10.0.0.0/8 fc00::/7; deliver_to &world }",
    ],
)
def test_an_open_relay_is_refused(text: str) -> None:
    assert "would be an open relay" in fault(text.replace("; ", "\n").replace("{ ", "{\n").replace(" }", "\n}"))


def test_notifications_of_mail_from_anybody_to_anybody_are_followed_as_well() -> None:
    text = "smtp tcp://0.0.0.0:25 {\ndeliver_to queue {\ntarget &store\nbounce {\ndeliver_to &out\n}\n}\n}"
    assert "would send notifications to whoever a stranger names as the sender" in fault(text)
    assert endpoint(text.replace("deliver_to &out", "destination a.test {\ndeliver_to &out\n}\nreject")).listen


WEAK = {
    "a queue whose notifications go to anybody": (
        (
            "smtp tcp://0.0.0.0:25 {\ndestination a.test {\ndeliver_to queue {\ntarget &store\nbounce {\n"
            "deliver_to &out\n}\n}\n}\n}"
        ),
        ["senders that may be forged"],
    ),
    "a queue that sends to the world": (
        "smtp tcp://0.0.0.0:25 {\ndestination a.test {\ndeliver_to &world\n}\n}",
        ["senders that may be forged"],
    ),
    "a queue whose notifications go to its own domains": (
        (
            "smtp tcp://0.0.0.0:25 {\ndestination a.test {\ndeliver_to queue {\ntarget &store\nbounce {\n"
            "destination a.test {\ndeliver_to &home\n}\nreject\n}\n}\n}\n}"
        ),
        [],
    ),
    "nobody from outside": ("smtp tcp://127.0.0.1:25 {\ndeliver_to &world\n}", []),
    "users": ("submission tcp://127.0.0.1:587 {\ndeliver_to &world\n}", []),
    "no queue": ("smtp tcp://127.0.0.1:25 {\ndeliver_to &store\n}", ["a transaction has one recipient"]),
    "no queue, LMTP": ("lmtp tcp://127.0.0.1:24 {\ndeliver_to &store\n}", []),
    "rspamd": (
        "smtp tcp://127.0.0.1:25 {\ncheck {\nrspamd http://127.0.0.1:11333\n}\ndeliver_to &world\n}",
        ["of rspamd's answer only the action counts"],
    ),
    "rspamd for some": (
        (
            "smtp tcp://127.0.0.1:25 {\ndestination a.test {\ncheck {\nrspamd http://127.0.0.1:11333\n}\n"
            "deliver_to &world\n}\n}"
        ),
        ["of rspamd's answer only the action counts"],
    ),
}


@pytest.mark.parametrize(
    ("endpoint", "is_choice"),
    [("smtp", True), ("submission", False)],
    ids=["servers come again, and who is unknown is told at once", "mail programs show it as an error"],
)
def test_mail_that_is_not_queued_may_be_meant_where_servers_bring_it(endpoint: str, is_choice: bool) -> None:
    configuration = loads(f"{TARGETS}{endpoint} tcp://127.0.0.1:25 {{\ndeliver_to &store\n}}")
    settings = configuration.endpoints[0].settings
    assert isinstance(settings, EndpointSettings)
    (spot,) = weak_spots(settings, lambda name: configuration.targets[name].settings)
    assert spot.is_choice is is_choice


@pytest.mark.parametrize(("text", "expected"), WEAK.values(), ids=WEAK)
def test_what_a_postmaster_should_know_of_an_endpoint_that_is_right(text: str, expected: list[str]) -> None:
    configuration = loads(TARGETS + text)
    found = [text for text, *_ in weak_spots(endpoint(text), lambda name: configuration.targets[name].settings)]
    assert len(found) == len(expected)
    assert all(words in text for words, text in zip(expected, found, strict=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("smtp { }", "expected an address"),
        ("smtp tcp://mx.example.org:25 { }", "expected an IP address, not a name"),
        ("smtp tls://127.0.0.1:465 { }", "needs a certificate"),
        ("submission tcp://0.0.0.0:587 {\n auth users\n}", "would never let anybody log in"),
    ],
)
def test_what_cannot_listen_is_refused(text: str, expected: str) -> None:
    assert expected in fault(text)


def test_all_faults_of_an_endpoint_are_told() -> None:
    text = "submission tcp://192.0.2.1:587 tcp://localhost:25 tls://127.0.0.1:465 { reject }\n"
    text += "smtp tcp://192.0.2.1:25 tls://127.0.0.1:466 {\nsource a.b { deliver_to &out }\ndeliver_to &world\n}"
    with pytest.raises(ConfigError) as caught:
        loads(TARGETS + text)
    assert [re.split("[;:] ", problem.message)[:3] for problem in caught.value.problems] == [
        ["submission", "tcp://localhost:25", "expected an IP address, not a name"],
        ["submission", "tls://127.0.0.1:465 needs a certificate", "tls CERT KEY"],
        ["submission", "tcp://192.0.2.1:587 would be an open relay", ANY],
        ["smtp", "tls://127.0.0.1:466 needs a certificate", "tls CERT KEY"],
        ["smtp", "tcp://192.0.2.1:25 would be an open relay", "mail from anybody to anybody would go to &out"],
        ["smtp", "tcp://192.0.2.1:25 would be an open relay", "mail from anybody to anybody would go to &world"],
    ]


@pytest.mark.parametrize(
    "text",
    [
        "smtp tcp://127.0.0.1:25 { reject }\nsubmission tls://127.0.0.1:25 { tls c k\nreject }",
        "smtp unix:///run/x { reject }\nlmtp unix:///run/x { reject }",
        "smtp tcp://127.0.0.1:25 tcp://127.0.0.1:25 { reject }",
    ],
)
def test_no_two_endpoints_listen_at_one_address(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is already listened at, by smtp \(at text:8:1\)"):
        loads(TARGETS + text)


@pytest.mark.parametrize(
    ("directives", "field"),
    [
        ({"max_message_size": "1K"}, "max_message_size"),
        ({"max_header_size": "2M"}, "max_header_size"),
        ({"max_header_size": "1b"}, "max_header_size"),
        ({"reject": "", "default_source": SourceSettings()}, "reject"),
        ({"reject": "", "deliver_to": TargetRef("x")}, "reject"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(directives: dict[str, object], field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        EndpointSettings(**directives)  # type: ignore[arg-type]


def test_a_submission_needs_a_login_where_there_is_a_password_file() -> None:
    assert SubmissionSettings(auth="users").needs_login
    assert not SubmissionSettings().needs_login
    assert not EndpointSettings(auth="users").needs_login


def test_a_sender_has_its_own_way() -> None:
    given = endpoint(
        """smtp tcp://127.0.0.1:25 {
        source example.org {
            reject 550 5.7.1 domain
        }
        source a@example.org B@example.net {
            deliver_to &home
        }
        destination example.com {
            reject 550 5.7.1 destination
        }
        deliver_to &world
        }"""
    )

    def way(sender: str, recipient: str = "x@y.test") -> str:
        found = decide(pipeline_for(given, ReversePath.parse(sender)), Mailbox.parse(recipient))
        return found.text if isinstance(found, Reply) else str(found)

    assert way("a@example.org") == "&home"
    assert way("b@Example.ORG") == "domain"
    assert way("b@example.net") == "&home"
    assert way("c@example.net") == "&world"
    assert way("c@example.net", "x@example.com") == "destination"
    assert way("") == "&world"


def test_a_default_source_takes_everybody_else() -> None:
    given = endpoint("smtp tcp://127.0.0.1:25 {\ndefault_source {\nreject 450 4.7.1 nobody\n}\n}")
    assert decide(pipeline_for(given, ReversePath.parse("")), Mailbox.parse("x@y.test")) == Reply.make(
        450, "4.7.1", "nobody"
    )


SIGNED = "modify {\ndkim example.org s1\n}"
CHECKED = "check {\nheader X-Spam YES reject\n}"


@pytest.mark.parametrize("what", [SIGNED, CHECKED])
@pytest.mark.parametrize(
    "text",
    [
        "{what}\ndeliver_to &home",
        "source example.org {{\n{what}\ndeliver_to &home\n}}",
        "default_source {{\n{what}\ndestination a.test {{\ndeliver_to &home\n}}\n}}",
        "source example.org {{\ndefault_destination {{\n{what}\ndeliver_to &home\n}}\n}}",
        "destination example.org {{\n{what}\ndeliver_to &home\n}}",
        "default_destination {{\n{what}\ndeliver_to &home\n}}",
    ],
)
def test_checks_and_signatures_stand_in_any_block_of_an_endpoint(text: str, what: str) -> None:
    assert endpoint(f"smtp tcp://127.0.0.1:25 {{\n{text.format(what=what)}\n}}").listen


@pytest.mark.parametrize(
    "text",
    [
        "source example.org {{\n{what}\nreject\n}}\ndeliver_to &home",
        "default_source {{\n{what}\ndestination a.test {{\nreject\n}}\n}}",
        "destination example.org {{\n{what}\nreject\n}}\ndeliver_to &home",
        "default_destination {{\n{what}\n}}",
    ],
)
@pytest.mark.parametrize(("what", "name"), [(SIGNED, "modify"), (CHECKED, "check")])
def test_what_would_be_done_to_mail_that_goes_nowhere_is_a_mistake(text: str, what: str, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(f"{TARGETS}smtp tcp://127.0.0.1:25 {{\n{text.format(what=what)}\n}}")
    assert f"{name} would never be used" in caught.value.problems[0].message


def test_notifications_are_signed_by_destination_and_not_checked() -> None:
    signed = f"target.queue q {{\ntarget &out\nbounce {{\ndefault_destination {{\n{SIGNED}\ndeliver_to &q\n}}\n}}\n}}"
    loads(TARGETS + signed)
    for wrong, expected in (
        (signed.replace(SIGNED, CHECKED), "notifications are not checked"),
        (signed.replace("deliver_to &q", "reject"), "modify would never be used"),
        (signed.replace("default_destination", "source example.org"), "notifications have no sender"),
        (signed.replace("default_destination", "default_source"), "notifications have no sender"),
    ):
        with pytest.raises(ConfigError) as caught:
            loads(TARGETS + wrong)
        assert expected in caught.value.problems[0].message


TIED = "check {\nauthorize_sender\n}"


@pytest.mark.parametrize(
    "text",
    [
        f"{TIED}\ndeliver_to &home",
        f"source a.test {{\n{TIED}\ndeliver_to &home\n}}",
        f"destination a.test {{\n{TIED}\ndeliver_to &home\n}}",
    ],
)
def test_a_check_of_logged_in_users_needs_somebody_who_can_log_in(text: str) -> None:
    assert "authorize_sender would let nobody through" in fault(f"submission tcp://127.0.0.1:587 {{\n{text}\n}}")
    endpoint(f"submission tcp://127.0.0.1:587 {{\nauth users\n{text}\n}}")


@pytest.mark.parametrize(
    ("text", "cert", "versions"),
    [
        ("tls /c /k\nsubmission tls://127.0.0.1:465 {\nreject\n}", "/c", "tls1.2 tls1.3"),
        ("tls /c /k\nsubmission tls://127.0.0.1:465 {\ntls {\nprotocols tls1.0\n}\nreject\n}", "/c", "tls1.0 tls1.3"),
        ("submission tls://127.0.0.1:465 {\ntls /d /l {\nprotocols tls1.0 tls1.2\n}\nreject\n}", "/d", "tls1.0 tls1.2"),
        ("tls /c /k {\nprotocols tls1.3\n}\nsubmission tls://127.0.0.1:465 {\nreject\n}", "/c", "tls1.3 tls1.3"),
    ],
)
def test_an_endpoint_may_speak_older_tls_than_others_with_the_same_certificate(
    text: str, cert: str, versions: str
) -> None:
    tls = endpoint(text).tls
    assert tls is not None
    assert (str(tls.cert), " ".join(tls.versions)) == (cert, versions)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tls {\nprotocols tls1.0\n}", "protocols need the certificate beside them"),
        ("tls {\n}", "expected a file with the certificate"),
        ("tls", "expected a file with the certificate"),
        ("tls off {\nprotocols tls1.0\n}", "expected a file with the certificate"),
        ("tls /c /k {\nprotocols tls0.9\n}", "protocols"),
        ("tls /c {\nprotocols tls1.0\n}", "expected a file with the certificate"),
        ("submission tls://127.0.0.1:465 {\ntls {\nprotocols tls1.0\n}\nreject\n}", "needs a certificate"),
    ],
)
def test_protocols_without_a_certificate_are_a_mistake(text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        loads(TARGETS + text)
