"""Hypothesis strategies for the values of `mailrider.model`, and for text that wants to be something else."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import strategies as st

from mailrider.errors import InvalidValue
from mailrider.model.address import Mailbox
from mailrider.model.domain import AddressLiteral, Domain
from mailrider.model.envelope import OriginalRecipient
from mailrider.model.reply import EnhancedCode, Reply

ASCII = "".join(map(chr, range(0x20, 0x7F)))

# What parsers trip over: separators of SMTP, line ends of all kinds, what looks like ASCII but is not, surrogates.
TRICKY = 'ab1.@<>:;,=+\\"()[]{}%-_ *\t\r\n\0\x1b\x7f\x85\xa0é€ſıßK\u200d\u2028\u202e\u2066\u3002\ud800\udc80😀'
tricky_text = st.one_of(
    st.text(st.sampled_from(TRICKY), max_size=20),
    st.text(max_size=40),
    st.text(st.characters(), max_size=40),  # surrogates too
)

# No surrogates, no control characters, nothing that reorders text.
safe_characters = st.one_of(
    st.sampled_from(ASCII),
    st.characters(
        exclude_categories=["Cs", "Cc", "Zl", "Zp"],
        exclude_characters="\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
    ),
)

_labels = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,14}[a-z0-9_])?", fullmatch=True)
domains = st.builds(
    lambda labels, top: Domain(".".join([*labels, top])),
    st.lists(_labels, max_size=4),
    st.sampled_from(["org", "example", "xn--p1ai", "a1"]),
)
literals = st.builds(
    AddressLiteral,
    st.one_of(
        st.ip_addresses(v=4).map(lambda ip: IPv4Address(int(ip))),
        st.ip_addresses(v=6).map(lambda ip: IPv6Address(int(ip))),
    ),
)


def _local_part(text: str) -> str:
    return text.encode()[:64].decode(errors="ignore")


local_parts = st.text(safe_characters, max_size=64).map(_local_part)
mailboxes = st.builds(Mailbox, local_parts, st.one_of(st.none(), domains, literals))

original_recipients = st.one_of(
    st.builds(
        OriginalRecipient,
        st.sampled_from(["rfc822", "x400", "RFC822", "unknown"]),
        st.text(st.sampled_from(ASCII), min_size=1, max_size=80),
    ),
    st.builds(
        OriginalRecipient, st.sampled_from(["utf-8", "UTF-8"]), st.text(safe_characters, min_size=1, max_size=80)
    ),
)

enhanced_codes = st.builds(EnhancedCode, st.sampled_from([2, 4, 5]), st.integers(0, 999), st.integers(0, 999))


@st.composite
def replies(draw: st.DrawFn) -> Reply:
    """Replies as they are after `Reply.from_lines`: no line hides an enhanced code in its text."""
    code = draw(st.integers(200, 599))
    lines = draw(st.lists(st.text(safe_characters, max_size=60), min_size=1, max_size=5))
    enhanced = (
        draw(st.none() | enhanced_codes.filter(lambda one: one.klass == code // 100)) if code // 100 != 3 else None
    )
    prefix = f"{enhanced} " if enhanced else ""
    return Reply.from_lines(code, tuple(prefix + line for line in lines))


def parses(parse: object, text: str) -> bool:
    """True if `parse(text)` gives a value; False for `InvalidValue`; every other exception is a bug."""
    assert callable(parse)
    try:
        parse(text)
    except InvalidValue:
        return False
    return True
