"""Directives that other programs have and this one has not: what is to be written instead.

They come in when a `maddy.conf` is moved, and are refused like all that is not known, but with advice. A name may mean
different things in different blocks (`_IN`); `_ANYWHERE` holds where its block has no entry.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_RSPAMD = "let rspamd do that: check { rspamd http://127.0.0.1:11333 }"
_MAILBOXES = "mailboxes are another program's: write target.lmtp NAME { host unix:///run/dovecot/lmtp }"
_REWRITING = "addresses are not rewritten; leave that to what receives your mail"
_NO_SENDER = "notifications have no sender; put what is in it into bounce itself"
_OURS = "notifications are not checked: they are ours"
_SENDERS = "write user NAME ADDRESS... for each user whose name is not his address"
_ACTION = "leave it out: what does not fit is refused"

_IN: Final[Mapping[tuple[str, str], str]] = {
    ("bounce", "check"): _OURS,
    ("destination", "check"): _OURS,
    ("default_destination", "check"): _OURS,
    ("bounce", "source"): _NO_SENDER,
    ("bounce", "default_source"): _NO_SENDER,
    ("check", "dkim"): _RSPAMD,
    ("check", "require_tls"): "leave it out: passwords go over TLS only",
    ("target.smtp", "require_tls"): "write starttls required, which is the default",
}
_ANYWHERE: Final[Mapping[str, str]] = {
    "auth_map": "write the names that users log in with into the password file: auth FILE",
    **dict.fromkeys(("auth_map_normalize", "auth_normalize"), "leave it out: user names are compared as they are"),
    "insecure_auth": "leave it out: passwords go over TLS, or never leave this machine",
    "sasl_login": "leave it out: LOGIN is always there",
    "io_debug": "the dialogue is in the log under the global directive debug yes",
    "buffer": "leave it out: large messages wait in a file, small ones in memory",
    "write_timeout": "read_timeout is for both directions",
    "defer_sender_reject": "leave it out: senders are judged with each recipient",
    "max_logged_rcpt_errors": "leave it out: everything that is refused is logged",
    "proxy_protocol": "let clients connect directly; for programs of this machine use unix:///PATH",
    "reroute": "write the destinations where they are used",
    "source_in": "name the domains: source D... { }",
    "destination_in": "name the domains: destination D... { }",
    **dict.fromkeys(
        ("dmarc", "spf", "dnsbl", "milter", "command", "require_mx_record", "require_matching_rdns"), _RSPAMD
    ),
    **dict.fromkeys(("prepare_email", "user_to_email"), _SENDERS),
    "from_normalize": "leave it out: addresses are compared without regard to case",
    **dict.fromkeys(("unauth_action", "no_match_action", "malformed_action", "err_action"), _ACTION),
    **dict.fromkeys(("replace_rcpt", "replace_sender"), _REWRITING),
    "targets": "write host tcp://HOST:PORT for each server",
    "attempt_starttls": "write starttls required, offered or no",
    "hash": "leave it out",
    **dict.fromkeys(("domains", "selector"), "write dkim DOMAIN... SELECTOR { ... }"),
    **dict.fromkeys(("header_canon", "body_canon"), "leave it out: it is relaxed"),
    "require_sender_match": "leave it out: what is signed is said by the author's domain (From)",
    "allow_body_subset": "leave it out: the whole body is signed",
    "statedir": "write state_dir PATH",
    "runtimedir": "write runtime_dir PATH",
    "imap": "leave it out: there is no IMAP here",
    "msgpipeline": "write what is in it where it is used; " + _MAILBOXES,
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
    found = _IN.get((where, name)) or _ANYWHERE.get(name)
    return found or next((text for prefix, text in _PREFIXES.items() if name.startswith(prefix) and name != prefix), "")
