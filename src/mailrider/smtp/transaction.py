"""One mail transaction, sans I/O: envelope and capabilities in, commands out, a decision per recipient at the end.

RFC 5321 3.3; pipelining RFC 2920 3.1; BDAT RFC 3030; SIZE RFC 1870; 8BITMIME RFC 6152; SMTPUTF8 RFC 6531; DSN
parameters RFC 3461; REQUIRETLS RFC 8689; LIMITS RFC 9422; LMTP RFC 2033 4.2.

The driver asks `next()` what to do, does it, hands every answer to `take()`, and asks again. If the connection goes, it
says `lost()`. What the replies mean under pipelining stands here and nowhere else:

- a refused MAIL decides every recipient; what follows it is ignored;
- a refused RCPT decides its recipient;
- a refused DATA or chunk decides only the recipients that RCPT accepted;
- the reply to the end of data decides those too (in LMTP one reply each, in order);
- a 421 before the end of data decides nobody: it is a farewell, not an answer;
- a recipient that is one too many (452, x.5.3) behind an accepted one goes into `overflow`: a further transaction;
- 503 behind a refused RCPT judges nobody: with that recipient the server has dropped the transaction, as some do. Who
  is answered so, or was accepted before, goes into `overflow`, too.

On a connection that carried a message before (`used`), a late second reply to that one may stand in the way: it is
taken for the next command's, and all that follow are displaced. So nothing for good is believed there before it is
proved that replies and commands still belong together: by 354, which is an answer to nothing but DATA, or by 221, which
is one to nothing but QUIT.

A recipient that is neither in `decisions` nor in `overflow` when all is over is undecided.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final

from mailrider.model.outcome import TryResult
from mailrider.smtp.client import OutOfStep
from mailrider.smtp.commands import Bdat, Body, Command, Data, EndOfData, Mail, Quit, Rcpt, Rset
from mailrider.smtp.refused_unasked import refused_unasked
from mailrider.smtp.replies import MAX_WORDS
from mailrider.smtp.steps import (
    Decision,
    SendChunk,
    SendCommands,
    SendContent,
    SendDot,
    SendQuit,
    as_452,
    is_session_full,
    is_too_many,
    of_few_domains,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailrider.model.envelope import Envelope, Recipient
    from mailrider.model.reply import Reply
    from mailrider.smtp.capabilities import Capabilities
    from mailrider.smtp.client import AnsweredCommand
    from mailrider.smtp.steps import ContentFacts, Step

# RFC 5321 4.5.3.1.8: what every server must take in one transaction. Servers that announce RCPTMAX say better.
MAX_RECIPIENTS = 100
# A chunk is refused as a whole, so that a large message need not be sent to its end for a refusal (RFC 3030 2).
CHUNK_SIZE = 4 * 1024 * 1024
_OUT_OF_ORDER = 503
_DATA = Data()
_ANSWERS_TO_QUIT = (221, 421)
_NO_SUCH_COMMAND = (500, 502)
_CONTENT = SendContent(EndOfData())


class _State(enum.Enum):
    START = enum.auto()
    ENVELOPE = enum.auto()
    CONTENT = enum.auto()
    DONE = enum.auto()


# A member of an enumeration costs as much as a call each time that it is looked up; these are asked for each time.
_ENVELOPE: Final = _State.ENVELOPE
_SENDING: Final = _State.CONTENT
_DONE: Final = _State.DONE
_START: Final = _State.START
_FINAL: Final = TryResult.FINAL


class Transaction:
    """A message on its way to some recipients over one connection.

    Afterwards: `decisions` by index into `recipients`; `overflow`, the indices for a further transaction; `answered`,
    True if the server said anything, a farewell and what is behind it aside; `farewell`, the 421 that ended it;
    `session_refusal`, a reply that judges our login (RFC 4954 6), or says that this connection has carried enough, and
    decides nobody;
    `knows_no_chunks`, True if the server offered CHUNKING and does not know BDAT, which decides nobody either;
    `in_doubt`, True if the server may have the message though it did not say so; `reusable`, True if the connection is
    in a clean state.
    """

    def __init__(
        self,
        envelope: Envelope,
        recipients: Sequence[Recipient],
        content: ContentFacts,
        capabilities: Capabilities,
        *,
        strict_eight_bit: bool = False,
        lmtp: bool = False,
        used: bool = False,
        session_codes: frozenset[int] = frozenset(),
    ) -> None:
        """`used`: the connection carried another message before. `session_codes`: refusals that judge the session."""
        self.recipients = recipients
        self.decisions = refused_unasked(envelope, recipients, content, capabilities, strict=strict_eight_bit)
        self.farewell: Reply | None = None
        self.session_refusal: Reply | None = None
        self.knows_no_chunks = False
        self.answered = False
        self.content_sent = False
        self.in_doubt = False
        self.reusable = True
        self.opening: Sequence[Any] = ()
        self.said: list[Any] = []
        """What was said before it on its connection, and in it, as whoever carries it keeps that."""
        self._envelope = envelope
        self._content = content
        self._capabilities = capabilities
        self._lmtp = lmtp
        self._state = _START
        self._accepted: list[int] = []
        self._mail_accepted = False
        self._data_answered = False
        self._used = used
        self._session_codes = session_codes
        self._envelope_in_step = not used
        self._refused_some = False
        self._refused_recipient = False
        self._proof_asked = False
        self._octets_left = content.size
        self._chunking = capabilities.chunking and not lmtp
        self._chunk_taken = used  # where others were sent before it, a reply may belong to something else
        self.unnamed, self.overflow = self._whom_to_name()
        """The recipients that the server was not told of yet, and those for a further transaction."""
        self._unanswered = list(self.unnamed)

    def _whom_to_name(self) -> tuple[list[int], list[int]]:
        others: list[int] = []
        todo = list(range(len(self.recipients)))
        if self.decisions:
            todo = [index for index in todo if index not in self.decisions]
        if self._capabilities.max_domains is not None:
            todo, others = of_few_domains(self.recipients, todo, self._capabilities.max_domains)
        limit = min(self._capabilities.max_recipients or MAX_RECIPIENTS, MAX_RECIPIENTS * 10)
        return todo[:limit], others + todo[limit:]

    # What to send -----------------------------------------------------------------------------------------------------

    def next(self) -> Step | None:
        """The next step, once all answers to the last one were handed over; None when the transaction is over."""
        if self.farewell is not None:
            return None
        if self._state is _DONE:
            return self._ask_for_proof()
        if self._state is _START:
            return self._begin()
        if self._state is _ENVELOPE:
            return self._continue_envelope()
        return self._continue_content()

    def _ask_for_proof(self) -> Step | None:
        """Before a refusal for good is believed on a used connection, unless 354 has proved it."""
        if self._proof_asked or not self._used or not self._refused_some:
            return None
        if not any(each.wants_proof(self._envelope_in_step) for each in self.decisions.values()):
            return None
        self._proof_asked = True
        self.reusable = False
        return SendQuit()

    def _begin(self) -> Step | None:
        if not self.unnamed:
            self._state = _DONE
            return None
        self._state = _ENVELOPE
        if not self._capabilities.pipelining:
            return SendCommands((self._mail(),))
        commands: list[Command] = [self._mail()]
        commands += [self._rcpt(self.recipients[index]) for index in self.unnamed]
        self.unnamed = []
        # BDAT carries content at once, so it waits for the replies; DATA asks first (RFC 2920 3.1).
        if not self._chunking:
            commands.append(_DATA)
        return SendCommands(tuple(commands))

    def _continue_envelope(self) -> Step | None:
        if self._data_answered:
            return self._after_consent()
        if self._mail_accepted and self.unnamed:
            return SendCommands((self._rcpt(self.recipients[self.unnamed.pop(0)]),))
        if not self._accepted:
            # Nobody is left, and DATA was never sent: the connection is good for another sender or recipient.
            self._state = _DONE
            proof = self._ask_for_proof()
            if proof is not None or self.session_refusal is not None:
                return proof
            return SendCommands((Rset(),))
        if not self._envelope_in_step and self._refused_some:
            self._chunking = False  # DATA has an answer of its own kind
        if self._chunking:
            self._state = _SENDING
            return self._continue_content()
        return SendCommands((_DATA,))

    def _after_consent(self) -> Step:
        self._state = _SENDING
        if not self._accepted:
            self._state = _DONE
            self.reusable = False
            return SendDot()
        self.content_sent = True
        return SendContent(EndOfData(len(self._accepted))) if self._lmtp else _CONTENT

    def _continue_content(self) -> Step | None:
        if not self._chunking or (self.content_sent and not self._octets_left):
            self._state = _DONE
            return self._ask_for_proof()
        size = min(self._octets_left, CHUNK_SIZE)
        self._octets_left -= size
        self.content_sent = True
        return SendChunk(Bdat(size, last=not self._octets_left))

    def _mail(self) -> Mail:
        offered, envelope = self._capabilities, self._envelope
        # Who needs SMTPUTF8 and is not offered it has been refused already.
        needs_utf8 = offered.smtputf8 and (
            not envelope.sender.is_ascii
            or (envelope.smtputf8 and self._content.header_is_utf8)
            or not all(self.recipients[index].mailbox.is_ascii for index in self.unnamed)
        )
        return Mail(
            envelope.sender,
            size=self._content.size if offered.size else None,
            body=Body.EIGHT_BIT_MIME if self._content.eight_bit and offered.eight_bit_mime else None,
            smtputf8=needs_utf8,
            requiretls=envelope.requiretls and offered.requiretls,
            ret=envelope.ret if offered.dsn else None,
            envid=envelope.envid if offered.dsn else None,
        )

    def _rcpt(self, recipient: Recipient) -> Rcpt:
        if not self._capabilities.dsn:
            return Rcpt(recipient.mailbox)
        return Rcpt(recipient.mailbox, recipient.notify, recipient.original)

    # What the answers mean --------------------------------------------------------------------------------------------

    def take(self, answer: AnsweredCommand) -> None:
        """One answer, in the order of arrival."""
        command, reply = answer
        if reply.code != 421 and self.farewell is None:
            self.answered = True
        # Every RCPT has one reply, whatever it says: the next one is the next recipient's.
        kind = type(command)
        index = self._unanswered.pop(0) if kind is Rcpt else -1
        if kind is Bdat and reply.code in _NO_SUCH_COMMAND and not self._chunk_taken:
            self._find_no_chunks()
        elif kind is EndOfData or (type(command) is Bdat and command.last):
            self._take_final(reply)
        elif kind is Quit:
            if reply.code not in _ANSWERS_TO_QUIT:
                raise OutOfStep(f"{str(reply)[:MAX_WORDS]} is no answer to QUIT")
        elif reply.code == 421:
            # RFC 5321 3.8: the server is going; it has judged neither message nor recipient.
            self.farewell = reply
            self.reusable = False
        elif kind is Mail:
            self._take_mail(reply)
        elif kind is Rcpt:
            self._take_rcpt(index, reply)
        elif kind is Bdat:
            self._take_chunk(reply)
        elif kind is Data:
            self._take_data(reply)
        else:  # Rset: nothing else is ever sent
            self.reusable = reply.is_positive

    def _take_mail(self, reply: Reply) -> None:
        self._mail_accepted = is_positive = reply.is_positive
        if is_positive:
            return
        self._refused_some = True
        self.unnamed, self.overflow = [], []
        if self._used and is_session_full(reply):
            self._end_session(reply)
        elif not self._judges_session(reply):
            for index in range(len(self.recipients)):
                self.decisions.setdefault(index, Decision(TryResult.MAIL, reply))

    def _judges_session(self, reply: Reply) -> bool:
        """True if the server refuses us and not the message: that decides nobody, and the connection is of no use."""
        if reply.code not in self._session_codes:
            return False
        self._end_session(reply)
        return True

    def _end_session(self, reply: Reply) -> None:
        self.session_refusal = reply
        self.reusable = False

    def _take_rcpt(self, index: int, reply: Reply) -> None:
        if not self._mail_accepted:
            return
        if reply.is_positive:
            self._accepted.append(index)
            return
        if self._was_dropped(reply):
            self.overflow.append(index)
            return
        if self._judges_session(reply):
            return
        self._refused_some = True
        if is_too_many(reply):
            if self._accepted:
                self.overflow.append(index)
                return
            reply = as_452(reply)
        self.decisions[index] = Decision(TryResult.RCPT, reply)
        self._refused_recipient = True

    def _was_dropped(self, reply: Reply) -> bool:
        """True if there is no transaction any more since the server refused a recipient of it."""
        return reply.code == _OUT_OF_ORDER and self._refused_recipient

    def _take_data(self, reply: Reply) -> None:
        if self._data_answered and self._used:
            raise OutOfStep(f"{str(reply)[:MAX_WORDS]} in the middle of the content may belong to the message before")
        self._data_answered = True
        if reply.code < 400:
            self._envelope_in_step = True
        elif self._accepted and not self._was_dropped(reply) and self._judges_session(reply):
            self._state = _DONE
        else:
            self._decide_accepted(Decision(TryResult.DATA, reply))

    def _find_no_chunks(self) -> None:
        """RFC 5321 4.2.4: 500 and 502 judge the command. What stood in the chunk was read as commands."""
        self.knows_no_chunks = True
        self.in_doubt = self.reusable = False
        self._state = _DONE

    def _take_chunk(self, reply: Reply) -> None:
        self._chunk_taken = True
        if not reply.is_positive:
            self._decide_accepted(Decision(TryResult.DATA, reply))

    def _take_final(self, reply: Reply) -> None:
        self.in_doubt = False
        if self._lmtp:
            self.decisions[self._accepted.pop(0)] = Decision(_FINAL, reply)
            if not reply.is_positive:
                self._refused_some = True
                self.reusable = False
            self.in_doubt = bool(self._accepted)
            return
        self._decide_accepted(Decision(_FINAL, reply))

    def _decide_accepted(self, decision: Decision) -> None:
        if self._was_dropped(decision.reply) and (self._chunking or decision.stage is not _FINAL):
            self.overflow += self._accepted
        else:
            for index in self._accepted:
                self.decisions[index] = decision
        if not decision.reply.is_positive:
            # Never reused after a failed DATA.
            self._refused_some = True
            self.reusable = False
            self._state = _DONE

    def sent_final(self) -> None:
        """The final dot (or the last chunk) has been handed to the network: from now on a loss leaves a doubt."""
        self.in_doubt = self._state is _SENDING

    def cut_short(self) -> None:
        """The server is slow: go on with those that it accepted, if any; the unnamed go into `overflow`."""
        if self._accepted:
            self.overflow += self.unnamed
            self.unnamed = []

    def lost(self, *, heard: bool = False) -> None:
        """The connection is gone; what was decided stays decided. `heard`: it began to answer."""
        if heard and self.farewell is None:
            self.answered = True
        self.reusable = False
        self._state = _DONE

    def out_of_step(self, *, heard: bool = False) -> None:
        """The connection is worthless: a reply came that is none to its command.

        On a connection that was new until now, what was decided before was decided in step. On a used one nothing is
        believed that is not proved: who was refused has no answer, and whose content was sent is in doubt.
        """
        self.lost(heard=heard)
        if not self._used:
            return
        in_step, lmtp = self._envelope_in_step, self._lmtp
        withdrawn = [index for index, each in self.decisions.items() if each.may_be_displaced(in_step, lmtp=lmtp)]
        for index in withdrawn:
            if self.decisions.pop(index).stage is _FINAL:
                self.in_doubt = True
                if index not in self._accepted:
                    self._accepted.append(index)
        if not self.in_doubt and not any(each.stage is _FINAL for each in self.decisions.values()):
            # As if the connection had been closed while it was idle: all of it may be repeated on a new one.
            self.answered = False

    @property
    def accepted(self) -> tuple[int, ...]:
        """The recipients that RCPT accepted and (in LMTP) no final reply decided; the doubt is about them."""
        return tuple(self._accepted)

    @property
    def undecided(self) -> tuple[int, ...]:
        """The recipients that nothing decided."""
        known = self.decisions.keys() | set(self.overflow)
        return tuple(index for index in range(len(self.recipients)) if index not in known)
