"""What `send` says of a result: for people, for programs, for shells."""

from __future__ import annotations

import json

import pytest

from mailrider.app.submission import Report, Result
from mailrider.cli.send import as_text, exit_code
from mailrider.model.outcome import Status, Try, TryResult
from mailrider.model.reply import Reply
from mailrider.model.security import Mechanism, MXLevel, Security, TLSLevel
from mailrider.report.outcome import result_object

SECURE = Security(MXLevel.DNSSEC, TLSLevel.AUTHENTICATED, Mechanism.DANE, "TLSv1.3", "TLS_AES_256_GCM_SHA384")
OK = Reply.make(250, "2.0.0", "mx.test said: Ok")
REFUSED = Reply.make(451, "4.4.1", "Connection refused")


def result(status: str, code: int, enhanced: str | None, **more: object) -> Result:
    return Result("x@a.test", Status(status), Reply.make(code, enhanced, "words"), **more)  # type: ignore[arg-type]


DELIVERED = result("delivered", 250, "2.0.0")
DEFERRED = result("deferred", 451, "4.4.1")
FAILED = result("failed", 550, "5.1.1")
NO_ADDRESS = result("failed", 501, "5.1.3")
REFUSED_ADDRESS = result("failed", 501, "5.1.3", mx="mx.test")

CODES = {
    "all delivered": ([DELIVERED, DELIVERED], 0),
    "one deferred": ([DELIVERED, DEFERRED], 75),
    "one failed": ([DELIVERED, FAILED], 69),
    "deferred and failed": ([DEFERRED, FAILED, DELIVERED], 69),
    "an address that is none": ([NO_ADDRESS], 65),
    "an address that is none beside others": ([NO_ADDRESS, DELIVERED, DEFERRED], 65),
    "an address that is none, and a failure": ([NO_ADDRESS, FAILED], 69),
    "an address that a server says is none": ([REFUSED_ADDRESS, NO_ADDRESS], 69),
}


@pytest.mark.parametrize(("results", "code"), CODES.values(), ids=CODES)
def test_exit_codes_are_those_of_sysexits(results: list[Result], code: int) -> None:
    assert exit_code(Report(tuple(results))) == code


# For programs ---------------------------------------------------------------------------------------------------------

KEYS = [
    *("recipient", "status", "code", "enhanced", "text", "mx", "address", "mx_level", "tls_level", "tls_version"),
    *("cipher", "authenticated_by", "in_doubt", "attempts"),
]


def test_the_object_has_exactly_the_fields_of_the_specification() -> None:
    tries = (
        Try("mx0.test", "192.0.2.1", TryResult.CONNECT, REFUSED),
        Try("mx.test", "192.0.2.2", TryResult.DELIVERED, OK, SECURE),
    )
    given = Result("x@a.test", Status.DELIVERED, OK, "mx.test", "192.0.2.2", SECURE, attempts=tries)
    made = json.loads(json.dumps(result_object(given)))
    assert list(made) == KEYS
    assert made == {
        "recipient": "x@a.test",
        "status": "delivered",
        "code": 250,
        "enhanced": "2.0.0",
        "text": "mx.test said: Ok",
        "mx": "mx.test",
        "address": "192.0.2.2",
        "mx_level": "dnssec",
        "tls_level": "authenticated",
        "tls_version": "TLSv1.3",
        "cipher": "TLS_AES_256_GCM_SHA384",
        "authenticated_by": "dane",
        "in_doubt": False,
        "attempts": [
            {
                "mx": "mx0.test",
                "address": "192.0.2.1",
                "result": "connect",
                "code": 451,
                "enhanced": "4.4.1",
                "text": "Connection refused",
            },
            {
                "mx": "mx.test",
                "address": "192.0.2.2",
                "result": "delivered",
                "code": 250,
                "enhanced": "2.0.0",
                "text": "mx.test said: Ok",
            },
        ],
    }


def test_what_is_not_known_is_null_and_every_reply_has_an_enhanced_code() -> None:
    made = result_object(result("failed", 550, None))
    assert (made["mx"], made["address"], made["tls_version"], made["cipher"], made["authenticated_by"]) == (None,) * 5
    assert (made["enhanced"], made["mx_level"], made["tls_level"], made["attempts"]) == ("5.0.0", "none", "none", [])


# For people -----------------------------------------------------------------------------------------------------------


def text(given: Result) -> list[str]:
    return as_text(given).plain.split("\n")


def test_a_delivery_shows_where_it_went_and_how_safely() -> None:
    given = Result("x@a.test", Status.DELIVERED, OK, "mx.test", "192.0.2.2", SECURE)
    assert text(given) == [
        "x@a.test  delivered  mx.test [192.0.2.2]  TLSv1.3  tls=authenticated by dane mx=dnssec",
        "    250 2.0.0 mx.test said: Ok",
    ]


def test_a_delivery_in_clear_says_so() -> None:
    given = Result("x@a.test", Status.DELIVERED, OK, "mx.test", "192.0.2.2")
    assert text(given)[0] == "x@a.test  delivered  mx.test [192.0.2.2]  no TLS  tls=none mx=none"


def test_what_was_tried_before_is_shown() -> None:
    tries = (
        Try("mx0.test", "192.0.2.1", TryResult.CONNECT, REFUSED),
        Try("mx1.test", None, TryResult.LOOKUP, REFUSED),
        Try("mx.test", "192.0.2.2", TryResult.DELIVERED, OK),
    )
    given = Result("x@a.test", Status.DELIVERED, OK, "mx.test", "192.0.2.2", attempts=tries)
    assert text(given)[2:] == [
        "    before: mx0.test [192.0.2.1] connect: 451 4.4.1 Connection refused",
        "    before: mx1.test lookup: 451 4.4.1 Connection refused",
    ]


def test_a_doubt_is_told() -> None:
    given = Result("x@a.test", Status.DEFERRED, REFUSED, "mx.test", "192.0.2.2", in_doubt=True)
    assert "it is in doubt" in text(given)[2]


def test_an_outcome_without_a_server_names_none() -> None:
    assert text(FAILED) == ["x@a.test  failed", "    550 5.1.1 words"]


def test_an_argument_with_control_characters_does_no_harm_to_the_terminal() -> None:
    given = Result("x\x1b]0;evil\x07@a\u202e.test\n", Status.FAILED, REFUSED)
    assert all(line.isprintable() for line in text(given))
    assert len(text(given)) == 2
