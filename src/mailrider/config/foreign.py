"""Directives that other programs have and this one has not: what is to be written instead.

They come in when a `maddy.conf` is moved, and are refused like all that is not known, but with advice. A name may mean
different things in different blocks; `ANYWHERE` holds where its block has no entry.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

ANYWHERE: Final = ""

_RSPAMD = "let rspamd do that: check { rspamd http://127.0.0.1:11333 }"
_MAILBOXES = "mailboxes are another program's: write target.lmtp NAME { host unix:///run/dovecot/lmtp }"
_REWRITING = "addresses are not rewritten; leave that to what receives your mail"
_NO_SENDER = "notifications have no sender; put what is in it into bounce itself"
_OURS = "notifications are not checked: they are ours"
_SENDERS = "write user NAME ADDRESS... for each user whose name is not his address"
_ACTION = "leave it out: what does not fit is refused"

_IN: Final[Mapping[tuple[str, str], str]] = {
    ("bounce", "check"): _OURS,
    ("destination", "check"): _OURS,  # in an endpoint it is known
    ("default_destination", "check"): _OURS,
    ("bounce", "source"): _NO_SENDER,
    ("bounce", "default_source"): _NO_SENDER,
    (ANYWHERE, "auth_map"): "write the names that users log in with into the password file: auth FILE",
    (ANYWHERE, "auth_map_normalize"): "leave it out: user names are compared as they are",
    (ANYWHERE, "insecure_auth"): "leave it out: passwords go over TLS, or never leave this machine",
    (ANYWHERE, "sasl_login"): "leave it out: LOGIN is always there",
    (ANYWHERE, "io_debug"): "the dialogue is in the log under the global directive debug yes",
    (ANYWHERE, "buffer"): "leave it out: large messages wait in a file, small ones in memory",
    (ANYWHERE, "write_timeout"): "read_timeout is for both directions",
    (ANYWHERE, "defer_sender_reject"): "leave it out: senders are judged with each recipient",
    (ANYWHERE, "max_logged_rcpt_errors"): "leave it out: everything that is refused is logged",
    (ANYWHERE, "proxy_protocol"): "let clients connect directly; for programs of this machine use unix:///PATH",
    (ANYWHERE, "reroute"): "write the destinations where they are used",
    (ANYWHERE, "source_in"): "name the domains: source D... { }",
    (ANYWHERE, "destination_in"): "name the domains: destination D... { }",
    (ANYWHERE, "dmarc"): _RSPAMD,
    ("check", "dkim"): _RSPAMD,
    (ANYWHERE, "spf"): _RSPAMD,
    (ANYWHERE, "dnsbl"): _RSPAMD,
    (ANYWHERE, "milter"): _RSPAMD,
    (ANYWHERE, "command"): _RSPAMD,
    (ANYWHERE, "require_mx_record"): _RSPAMD,
    (ANYWHERE, "require_matching_rdns"): _RSPAMD,
    ("check", "require_tls"): "leave it out: passwords go over TLS only",
    (ANYWHERE, "prepare_email"): _SENDERS,
    (ANYWHERE, "user_to_email"): _SENDERS,
    (ANYWHERE, "auth_normalize"): "leave it out: user names are compared as they are",
    (ANYWHERE, "from_normalize"): "leave it out: addresses are compared without regard to case",
    (ANYWHERE, "unauth_action"): _ACTION,
    (ANYWHERE, "no_match_action"): _ACTION,
    (ANYWHERE, "malformed_action"): _ACTION,
    (ANYWHERE, "err_action"): _ACTION,
    (ANYWHERE, "replace_rcpt"): _REWRITING,
    (ANYWHERE, "replace_sender"): _REWRITING,
    (ANYWHERE, "targets"): "write host tcp://HOST:PORT for each server",
    ("target.smtp", "require_tls"): "write starttls required, which is the default",
    (ANYWHERE, "attempt_starttls"): "write starttls required, offered or no",
    (ANYWHERE, "hash"): "leave it out",
    (ANYWHERE, "domains"): "write dkim DOMAIN... SELECTOR { ... }",
    (ANYWHERE, "selector"): "write dkim DOMAIN... SELECTOR { ... }",
    (ANYWHERE, "header_canon"): "leave it out: it is relaxed",
    (ANYWHERE, "body_canon"): "leave it out: it is relaxed",
    (ANYWHERE, "require_sender_match"): "leave it out: what is signed is said by the author's domain (From)",
    (ANYWHERE, "allow_body_subset"): "leave it out: the whole body is signed",
    (ANYWHERE, "statedir"): "write state_dir PATH",
    (ANYWHERE, "runtimedir"): "write runtime_dir PATH",
    (ANYWHERE, "imap"): "leave it out: there is no IMAP here",
    (ANYWHERE, "msgpipeline"): "write what is in it where it is used; " + _MAILBOXES,
}

# Parameters that every main.cf of Postfix has some of, as it writes them; our language has no such line.
_MAIN_CF = re.compile(
    r"^(?:alias_maps|compatibility_level|inet_interfaces|inet_protocols|mydestination|mydomain|myhostname|mynetworks|"
    r"myorigin|queue_directory|relayhost|virtual_[a-z_]+|smtpd?_[a-z_]+)[ \t]*=",
    re.MULTILINE,
)

# Blocks at the top level that define something by name.
_PREFIXES: Final[Mapping[str, str]] = {
    "auth.": "users are in a file: write auth FILE in the endpoint, and run mailrider auth add USER",
    "check.": "write it where it is used: check { ... }",
    "modify.": "write it where it is used: modify { ... }",
    "storage.": _MAILBOXES,
    "table.": "there are no tables; " + _REWRITING,
}


def other_program(text: str) -> tuple[int, str] | None:
    """Where a text shows that it is another program's configuration as a whole, and what helps; None if it is not."""
    found = _MAIN_CF.search(text)
    if found is None:
        return None
    return found.start(), "this is a main.cf of Postfix: mailrider migrate MAIN.CF [MASTER.CF] translates it"


def advice(where: str, name: str) -> str:
    """What to write instead of a directive that does not stand in a block; empty if that is not known."""
    found = _IN.get((where, name)) or _IN.get((ANYWHERE, name))
    return found or next((text for prefix, text in _PREFIXES.items() if name.startswith(prefix) and name != prefix), "")
