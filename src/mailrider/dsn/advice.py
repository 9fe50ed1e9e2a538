"""What a person can do about a failure, by its enhanced status code (RFC 3463, RFC 5248)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mailrider.model.reply import EnhancedCode

_CHECK_ADDRESS: Final = "Check the address for mistakes, and send the message again to the right one."
_OURS: Final = "If mail to other domains fails, too, the fault is here: tell your own postmaster."
_ASK: Final = "Ask the recipient by other means, or their postmaster, and quote the words above."

# By subject and detail; a detail of None stands for all others of its subject.
_ADVICE: Final[dict[tuple[int, int | None], str]] = {
    (1, 1): _CHECK_ADDRESS,
    (1, 2): "Check the part of the address behind the @ for mistakes: that domain does not exist.",
    (1, 3): _CHECK_ADDRESS,
    (1, 6): "The recipient has moved: find out the new address.",
    (1, 7): "Your own address was not accepted. Check the settings of your mail program.",
    (1, 8): "Your own address was not accepted. Check the settings of your mail program.",
    (1, 10): "That domain takes no mail at all: find out another address.",
    (1, None): _CHECK_ADDRESS,
    (2, 1): "The mailbox is disabled. Find out another address of the recipient.",
    (2, 2): "The mailbox is full. Try again later, or tell the recipient by other means.",
    (2, 3): "The message is too large for this recipient: send it without attachments, or a link to them.",
    (3, 4): "The message is too large for this server: send it without attachments, or a link to them.",
    (4, 1): "No server of that domain could be reached. Try again later. " + _OURS,
    (4, 3): "That domain could not be looked up. Try again later. " + _OURS,
    (4, 4): "No server of that domain could be found. Check the address, or ask the recipient by other means.",
    (4, 6): "The mail goes round in a loop. Tell your postmaster.",
    (4, 7): "We tried for so long that we gave up. Try again later, or use other means. " + _OURS,
    (6, 7): "Their server cannot handle an address with such characters. Ask for one in plain letters.",
    (6, 9): "Their server cannot handle such characters in the header, as in the subject. Use plain letters.",
    (
        7,
        10,
    ): "You asked for secure transport all the way, and their servers cannot prove it. Nothing was sent in clear.",
    (
        7,
        30,
    ): "You asked for secure transport all the way, and their servers cannot promise it. Nothing was sent in clear.",
    (7, None): "Their server refused it by a rule of its own, for its sender or its content. " + _ASK,
}


def advice_for(code: EnhancedCode) -> str:
    """One or two sentences."""
    return _ADVICE.get((code.subject, code.detail)) or _ADVICE.get((code.subject, None)) or _ASK
