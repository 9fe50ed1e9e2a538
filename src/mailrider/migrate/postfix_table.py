"""What becomes of single parameters of Postfix: those with a directive of the same meaning, and those without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mailrider.migrate.draft import argument
from mailrider.migrate.postfix_files import duration, split_list

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class OneLineParameter:
    """A parameter that becomes one line of a block; `write` gives it, or nothing for a value without a meaning here."""

    kind: str
    write: Callable[[str], str]


def _as(directive: str) -> Callable[[str], str]:
    return lambda value: f"{directive} {argument(value)}" if value else ""


def _all(directive: str) -> Callable[[str], str]:
    return lambda value: f"{directive} {' '.join(map(argument, split_list(value)))}" if value else ""


def _time(directive: str, unit: str) -> Callable[[str], str]:
    def write(value: str) -> str:
        span = duration(value, unit)
        return f"{directive} {span}" if span else ""

    return write


def _size(directive: str) -> Callable[[str], str]:
    return lambda value: f"{directive} {value}b" if value.isdigit() and int(value) else ""


def _address(value: str) -> str:
    return f"local_ip {value}" if value not in ("", "0.0.0.0", "::") else ""  # noqa: S104 # nothing is bound here


def _number(directive: str) -> Callable[[str], str]:
    return lambda value: f"{directive} {value}" if value.isdigit() and int(value) else ""


def _protocols(value: str) -> str:
    """The oldest version that is left: `>=TLSv1.2`, or the older ones excluded by name."""
    names = {"TLSv1": "tls1.0", "TLSv1.0": "tls1.0", "TLSv1.1": "tls1.1", "TLSv1.2": "tls1.2", "TLSv1.3": "tls1.3"}
    words = split_list(value)
    if words and words[0].startswith(">="):
        return f"protocols {names[words[0][2:]]}" if words[0][2:] in names else ""
    excluded = {names[word[1:]] for word in words if word[:1] == "!" and word[1:] in names}
    left = [each for each in ("tls1.0", "tls1.1", "tls1.2", "tls1.3") if each not in excluded]
    return f"protocols {left[0]}" if left and left[0] > "tls1.1" else ""


SIMPLE: Final = {
    "proxy_interfaces": OneLineParameter("top", _all("own_addresses")),
    "maximal_queue_lifetime": OneLineParameter("target.queue", _time("expire", "d")),
    "delay_warning_time": OneLineParameter("target.queue", _time("delay_warning", "h")),
    "minimal_backoff_time": OneLineParameter("target.queue", _time("initial_retry_time", "s")),
    "maximal_backoff_time": OneLineParameter("target.queue", _time("max_retry_time", "s")),
    "default_process_limit": OneLineParameter("target.queue", _number("max_parallelism")),
    "message_size_limit": OneLineParameter("submission", _size("max_message_size")),
    "header_size_limit": OneLineParameter("submission", _size("max_header_size")),
    "smtpd_recipient_limit": OneLineParameter("submission", _number("max_recipients")),
    "hopcount_limit": OneLineParameter("submission", _number("max_received")),
    "smtpd_client_connection_count_limit": OneLineParameter("submission", _number("max_client_connections")),
    "smtp_helo_name": OneLineParameter("target", _as("hostname")),
    "smtp_bind_address": OneLineParameter("target", _address),
    "smtp_bind_address6": OneLineParameter("target", _address),
    "smtp_connect_timeout": OneLineParameter("target", _time("connect_timeout", "s")),
    "smtp_data_done_timeout": OneLineParameter("target", _time("submission_timeout", "s")),
    "smtp_connection_reuse_count_limit": OneLineParameter("target", _number("conn_reuse_limit")),
    "smtp_tls_CAfile": OneLineParameter("tls_client", _as("root_ca")),
    "smtp_tls_mandatory_protocols": OneLineParameter("tls_client", _protocols),
}

_FILES: Final = "where Postfix keeps its own files; mailrider's are in state_dir"
_SERVICE: Final = "processes of Postfix: mailrider is one"
_BOXES: Final = "mailboxes are another program's: give it the mail by target.lmtp"
_LOCAL_TLS: Final = "nothing to choose: TLS is offered where tls names a certificate, and passwords go over TLS only"
_CIPHERS: Final = "the ciphers of OpenSSL's default are used"
_OLDEST: Final = "the oldest version is tls1.2; "
_LOGINS_OUT: Final = "nothing to choose: passwords go over verified TLS only"
_LOGINS_IN: Final = "nothing to choose: no anonymous users, and passwords over TLS only"
_REWRITING: Final = "addresses are not rewritten"
_RESTRICTIONS: Final = (
    "what may come in is said by the endpoints: submission takes mail of its users, programs and trusted networks, "
    "smtp takes it for the domains that it names; for the rest ask rspamd (check { rspamd })"
)
_MILTERS: Final = "DKIM is signed by modify { dkim ... }, rspamd is asked by check { rspamd ... }; others are not"

# Parameters that share a reason.
_ALIKE: Final = {
    "it is about Postfix itself": "compatibility_level mail_version",
    _BOXES: (
        "biff mailbox_size_limit home_mailbox mail_spool_directory local_recipient_maps local_transport "
        "virtual_mailbox_maps virtual_mailbox_base virtual_uid_maps virtual_gid_maps "
        "unknown_local_recipient_reject_code"
    ),
    _REWRITING: (
        "canonical_maps sender_canonical_maps recipient_canonical_maps smtp_generic_maps masquerade_domains "
        "virtual_alias_domains"
    ),
    "nothing to choose": "strict_rfc821_envelopes broken_sasl_auth_clients",
    _LOCAL_TLS: "smtpd_tls_auth_only smtpd_use_tls smtpd_enforce_tls smtpd_tls_security_level",
    "the log always tells": "smtpd_tls_loglevel smtp_tls_loglevel smtp_tls_note_starttls_offer",
    _CIPHERS + "; ciphers in tls_client names others": "smtp_tls_mandatory_ciphers smtp_tls_ciphers",
    _OLDEST + "tls CERT KEY { protocols ... } says otherwise": "smtpd_tls_protocols smtpd_tls_mandatory_protocols",
    _CIPHERS: "smtpd_tls_mandatory_ciphers smtpd_tls_ciphers",
    "clients are not asked for certificates": "smtpd_tls_CAfile smtpd_tls_CApath",
    _LOGINS_OUT: "smtp_sasl_security_options smtp_sasl_tls_security_options",
    _LOGINS_IN: "smtpd_sasl_security_options smtpd_sasl_tls_security_options",
    "passwords stand in a file of mailrider: mailrider auth add USER": "smtpd_sasl_type smtpd_sasl_path",
    _MILTERS: "smtpd_milters non_smtpd_milters",
    "there are no milters": "milter_protocol milter_mail_macros",
    "the log is on standard error, which systemd keeps": "maillog_file syslog_name",
    _FILES: "html_directory meta_directory shlib_directory queue_directory sendmail_path newaliases_path mailq_path",
    _SERVICE: "mail_owner setgid_group debugger_command",
}
REASONS: Final = {
    **{name: reason for reason, names in _ALIKE.items() for name in names.split()},
    "mail_name": "the greeting names no program",
    "smtpd_banner": "the greeting names the host, and no program",
    "append_dot_mydomain": "names are completed by origin, and not by parts",
    "append_at_myorigin": "nothing to choose: addresses without a domain get origin",
    "recipient_delimiter": "addresses are looked up as they are, without extensions",
    "mailbox_command": "mail is not given to programs; " + _BOXES,
    "alias_database": "there is nothing to rebuild: aliases are read again when their file changes",
    "relocated_maps": "write reject 551 5.7.1 TEXT in a destination for such an address",
    "disable_vrfy_command": "nothing to choose: VRFY tells nobody which addresses exist",
    "smtpd_helo_required": "nothing to choose: EHLO or HELO comes first",
    "smtpd_tls_received_header": "nothing to choose: Received says how the message came; received short says less",
    "smtpd_tls_session_cache_database": "sessions are not resumed",
    "smtp_tls_session_cache_database": "sessions are not resumed: connections are kept instead",
    "smtp_use_tls": "nothing to choose: TLS is used where it is offered",
    "smtp_enforce_tls": "see smtp_tls_security_level",
    "smtp_tls_CApath": "write root_ca FILE in tls_client: folders are not searched; the system's roots are known",
    "smtp_tls_fingerprint_digest": "certificates are verified by PKIX and DANE, not by fingerprints",
    "smtp_tls_protocols": _OLDEST + "protocols in tls_client says otherwise",
    "smtpd_tls_dh1024_param_file": "OpenSSL's own parameters are used",
    "tls_preempt_cipherlist": "OpenSSL's own order is used",
    "smtp_sasl_mechanism_filter": "nothing to choose: PLAIN and LOGIN, over verified TLS",
    "smtpd_sasl_local_domain": "users log in with the name that stands in the password file",
    "smtpd_sasl_authenticated_header": "received full, short or none-of-client says what the Received field tells",
    "smtp_address_preference": "IPv6 first, and the other family 250 ms behind it (RFC 8305)",
    "smtp_dns_support_level": "names are looked up in DNS, and DNSSEC counts where dns names a resolver that validates",
    "smtp_host_lookup": "names are looked up in DNS",
    "smtp_fallback_relay": "name a second host in target.smtp: they are tried in turn",
    "milter_default_action": "io_error_action of check { rspamd ... } says what follows if it is down",
    "content_filter": "give it the mail by target.smtp, and take it back by an endpoint of its own",
    "header_checks": "write check { header FIELD PATTERN reject }; patterns are those of file names",
    "body_checks": "bodies are not looked into; ask rspamd",
    "smtp_header_checks": "headers are not changed",
    "mime_header_checks": "only the header of the message is looked at: check { header ... }",
    "smtpd_relay_restrictions": _RESTRICTIONS,
    "relay_domains": "name them in an smtp endpoint: destination D { deliver_to ... }",
    "notify_classes": "postmaster ADDRESS hears of notifications that could not be delivered",
    "bounce_queue_lifetime": "expire holds for notifications, too",
    "bounce_template_file": "the text of notifications is fixed",
    "soft_bounce": "hold what you want to look at: mailrider queue hold",
    "postscreen_access_list": "put a filter such as rspamd in front",
    "smtpd_client_message_rate_limit": "write limits { ip rate N 60s } in the endpoint",
    "smtpd_client_connection_rate_limit": "write limits { ip rate N 60s } in the endpoint, for messages",
    "smtpd_upstream_proxy_protocol": "name the proxy's network in the endpoint: proxy_from 127.0.0.1/32",
    "inet_protocols": "both families are used; force_ipv4 yes in target.remote limits that",
    "debug_peer_level": "debug yes writes the dialogue to the log",
}
SUFFIXES: Final = {
    "_restrictions": _RESTRICTIONS,
    "_directory": _FILES,
    "_milters": _MILTERS,
    "_command": "mail is not given to programs",
    "_checks": REASONS["header_checks"],
}
UNKNOWN: Final = "mailrider has nothing of that kind"


def reason(name: str) -> str:
    """Why a parameter is not translated."""
    found = REASONS.get(name) or next((text for end, text in SUFFIXES.items() if name.endswith(end)), None)
    return found or UNKNOWN
