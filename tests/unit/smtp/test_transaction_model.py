"""Any server against a small oracle: random replies at any stage, any offer, lost at any byte.

The server knows nothing of the machines: it reads lines, answers with numbered replies, and keeps a journal of what it
answered. The oracle reads the part of the journal that arrived, and says in its own way what must have become of each
recipient. `Transaction` and `ClientMachine` are driven together, as a session drives them.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NamedTuple

from hypothesis import event, given, settings
from hypothesis import strategies as st

from mailrider.model.domain import Domain
from mailrider.smtp.client import ClientMachine, ClientState
from mailrider.smtp.commands import EndOfData
from mailrider.smtp.steps import SendChunk, SendCommands, SendContent, Step
from mailrider.smtp.transaction import CHUNK_SIZE, Transaction
from tests.support.long_runs import LONG
from tests.unit.smtp.dialogue import Facts, mail, offer, past_ehlo

# A good server, and what may go wrong at a stage. "!" makes the server close behind it, SILENCE lasts.
# Faults are few and placed: with bad luck at every stage hardly a transaction would reach its end.
SILENCE = "(silence)"
GOOD = {"mail": "250 OK", "rcpt": "250 OK", "data": "354 go", "chunk": "250 OK", "final": "250 OK", "rset": "250 OK"}
FAREWELL = ["421 bye!", "421 bye", SILENCE]
FAULTS = {
    "mail": [*FAREWELL, "450 no", "550 no", "354 hm"],
    "rcpt": [
        *FAREWELL, "251 OK", "450 no", "452 no", "452 4.2.2 no", "450 4.5.3 no", "550 no", "550 5.5.3 no", "552 no",
        "552 5.2.2 no", "354 hm",
    ],
    "data": [*FAREWELL, "451 no", "554 no", "250 hm"],
    "early": ["421 bye!", "452 no", "552 no", "250 hm"],
    "chunk": [*FAREWELL, "451 no", "552 no", "354 hm"],
    "final": [*FAREWELL, "451 no", "550 no", "354 hm"],
    "rset": ["421 bye!", SILENCE, "500 no"],
}  # fmt: skip

# Where and what: (stage, how many replies of that stage came before) -> reply.
Faults = dict[tuple[str, int], str]


class Exchange(NamedTuple):
    """One reply of the server, the stage that it belongs to, and where it ends in the stream of its octets."""

    stage: str
    recipient: int
    reply: str
    end: int


@dataclass
class Server:
    """A good server, but for its faults."""

    faults: Faults
    lmtp: bool
    journal: list[Exchange] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    said: Counter[str] = field(default_factory=Counter)
    final_came: bool = False
    closed: bool = False
    sent: int = 0

    def hear(self, line: str) -> bytes:
        if found := re.match(r"RCPT TO:<\w(\d+)@", line):
            data = self.say("rcpt", int(found[1]))
            if data[:1] == b"2":
                self.accepted.append(int(found[1]))
            return data
        stage = {"MAIL FROM": "mail", "DATA": "data", "RSET": "rset"}.get(line.partition(":")[0], "chunk")
        if stage == "chunk":
            assert line.startswith("BDAT ")
            assert self.accepted, "content without an accepted recipient"
            if line.endswith(" LAST"):
                self.final_came = True
                stage = "final"
        return self.say(stage)

    def hear_dot(self) -> bytes:
        self.final_came = True
        count = len(self.accepted) if self.lmtp else 1
        return b"".join(self.say("final") for _ in range(max(count, 1)))

    def say(self, stage: str, recipient: int = -1) -> bytes:
        reply = self.faults.get((stage, self.said[stage]), GOOD.get(stage, ""))
        self.said[stage] += 1
        if reply == SILENCE:
            self.closed = True
        if self.closed or not reply:
            return b""
        self.closed = reply.endswith("!")
        reply = f"{reply.rstrip('!')} #{len(self.journal)}"
        data = f"{reply}\r\n".encode()
        self.sent += len(data)
        self.journal.append(Exchange(stage, recipient, reply, self.sent))
        return data


@dataclass
class Wire:
    """What the server says arrives in pieces, and not at all past `limit` octets."""

    server: Server
    machine: ClientMachine
    transaction: Transaction
    limit: int
    piece: int
    arrived: int = 0
    lost: bool = False

    def deliver(self, data: bytes) -> None:
        if len(data) > self.limit - self.arrived:
            data = data[: self.limit - self.arrived]
            self.lost = True
        self.arrived += len(data)
        for start in range(0, len(data), self.piece):
            for answer in self.machine.receive(data[start : start + self.piece]):
                self.transaction.take(answer)

    def await_all(self) -> None:
        """As a session does: a closed or silent connection, or a violation, is a loss."""
        owes = self.machine.outstanding and self.machine.state is not ClientState.CLOSED
        if self.lost or owes or self.machine.violation is not None:
            self.lost = True
            self.transaction.lost()

    def perform(self, step: Step) -> None:
        server, machine = self.server, self.machine
        if isinstance(step, SendCommands):
            for line in machine.send(*step.commands).decode().splitlines():
                self.deliver(server.hear(line))
        elif isinstance(step, SendChunk):
            line = machine.send(step.command).decode().rstrip()
            if step.command.last:
                self.transaction.sent_final()
            self.deliver(server.hear(line))
        elif isinstance(step, SendContent):
            assert server.accepted, "content without an accepted recipient"
            before = self.arrived
            self.deliver(server.say("early"))
            if self.arrived == before and not self.lost:
                machine.send(step.command)
                self.transaction.sent_final()
                self.deliver(server.hear_dot())
        else:
            machine.send(EndOfData())
            server.hear_dot()
            return  # nobody waits for the reply
        self.await_all()


@dataclass
class Expected:
    """What the oracle says."""

    fates: dict[int, str]
    reusable: bool = True
    in_doubt: bool = False


SENSE = {"mail": "245", "rcpt": "245", "data": "345", "early": "45", "chunk": "245", "final": "245", "rset": "245"}


def believed(journal: list[Exchange], arrived: int) -> list[Exchange]:
    """The replies that arrived whole, up to one that makes no sense where it stands."""
    whole = (exchange for exchange in journal if exchange.end <= arrived)
    return list(takewhile(lambda exchange: exchange.reply[0] in SENSE[exchange.stage], whole))


def is_too_many(reply: str) -> bool:
    return bool(re.match(r"452|\d\d\d \d\.5\.3|552 (?!\d\.)", reply))


def oracle(asked: list[int], beyond: list[int], journal: list[Exchange], final_came: bool, lmtp: bool) -> Expected:
    """From the replies that arrived to what must have become of each recipient that we did not refuse ourselves."""
    said = Expected(dict.fromkeys(beyond, "overflow"))
    mail_taken, lone_dot, accepted, waiting = False, False, list[int](), list[int]()
    for stage, recipient, reply, _ in journal:
        good = reply[0] == "2"
        if stage == "final":
            lone_dot = lone_dot or not accepted
            decided = waiting[:1] if lmtp else waiting
            said.fates.update(dict.fromkeys(decided, f"final {reply}"))
            waiting = waiting[len(decided) :]
            said.reusable &= good
        elif reply.startswith("421"):
            said.reusable = False
        elif stage == "mail":
            mail_taken = good
            if not good:
                said.fates.update(dict.fromkeys(asked + beyond, f"mail {reply}"))
        elif stage == "rcpt" and mail_taken:
            if good:
                accepted.append(recipient)
            elif is_too_many(reply):
                said.fates[recipient] = "overflow" if accepted else f"rcpt {reply}"
            else:
                said.fates[recipient] = f"rcpt {reply}"
        elif stage in ("data", "early", "chunk") and reply[0] in "45":
            said.fates.update(dict.fromkeys(accepted, f"data {reply}"))
            said.reusable = False
        elif stage == "rset":
            said.reusable &= good
        waiting = waiting if stage == "final" else list(accepted)
    said.in_doubt = final_came and bool(waiting) and not lone_dot
    said.reusable &= not (final_came and not accepted)
    return said


def fates(transaction: Transaction, indices: dict[int, int]) -> dict[int, str]:
    """What the transaction says, in the words of the oracle. Nobody is in two places, nobody in none."""
    said = dict[int, str]()
    for index, decision in transaction.decisions.items():
        assert index not in transaction.overflow
        number = re.search(r"#\d+", decision.reply.text)
        said[indices[index]] = f"{decision.stage} {number[0]}" if number else "ours"
    said.update((indices[index], "overflow") for index in transaction.overflow)
    assert len(set(transaction.overflow)) == len(transaction.overflow)
    undecided = {indices[index] for index in transaction.undecided}
    assert not undecided & said.keys()
    assert undecided | said.keys() == set(indices.values())
    return said


def numbered(fate: str) -> str:
    """The oracle's words without the reply's text: that a 552 counts as 452 is told by the tables."""
    stage, _, reply = fate.partition(" ")
    return f"{stage} {reply.rpartition(' ')[2]}".rstrip()


places = st.one_of(
    st.tuples(st.sampled_from(["mail", "data", "early", "rset"]), st.just(0)),
    st.tuples(st.just("rcpt"), st.integers(0, 3)),
    st.tuples(st.just("rcpt"), st.integers(0, 3)),
    st.tuples(st.sampled_from(["chunk", "final"]), st.integers(0, 2)),
)
one_fault = places.flatmap(lambda place: st.tuples(st.just(place), st.sampled_from(FAULTS[place[0]])))
# How many is drawn first: a fault often hides behind another, so that two or three must be common.
faults = st.integers(0, 4).flatmap(lambda n: st.lists(one_fault, min_size=n, max_size=n)).map(dict)
KEYWORDS = ["PIPELINING", "CHUNKING", "SMTPUTF8", "DSN", "LIMITS RCPTMAX=2", "SIZE", "8BITMIME"]
offers = st.tuples(*(st.booleans() for _ in KEYWORDS)).map(
    lambda flags: [keyword for keyword, flag in zip(KEYWORDS, flags, strict=True) if flag]
)
NEVER = st.just(10**6)
# Local parts: `ö` needs SMTPUTF8.
letters = st.integers(1, 6).flatmap(lambda n: st.lists(st.sampled_from("bbbbö"), min_size=n, max_size=n))
names = letters.map(lambda letters: [f"{letter}{number}" for number, letter in enumerate(letters)])


@settings(max_examples=1000 if LONG else 100)
@given(
    faults=faults,
    offered=offers,
    names=names,
    size=st.sampled_from([0, 10, CHUNK_SIZE, 2 * CHUNK_SIZE + 1, 3 * CHUNK_SIZE]),
    limit=st.sampled_from([False, False, False, True]).flatmap(lambda cut: st.integers(0, 120) if cut else NEVER),
    piece=st.sampled_from([1, 7, 10**6]),
    lmtp=st.booleans(),
)
def test_whatever_the_server_says_each_recipient_has_the_fate_that_its_replies_mean(
    faults: Faults, offered: list[str], names: list[str], size: int, limit: int, piece: int, lmtp: bool
) -> None:
    capabilities = offer(*offered)
    envelope = mail(*names)
    machine = past_ehlo(Domain("mx.example.org"), capabilities)
    todo = list(range(len(names)))
    arrived = 0
    while todo:
        transaction = Transaction(
            envelope, [envelope.recipients[index] for index in todo], Facts(size), capabilities, lmtp=lmtp
        )
        server = Server(faults, lmtp)
        wire = Wire(server, machine, transaction, limit - arrived, piece)
        while (step := transaction.next()) is not None:
            wire.perform(step)

        ours = [index for index in todo if names[index].startswith("ö") and not capabilities.smtputf8]
        askable = [index for index in todo if index not in ours]
        most = capabilities.max_recipients or len(askable)
        journal = believed(server.journal, wire.arrived)
        expected = oracle(askable[:most], askable[most:], journal, server.final_came, lmtp)

        said = fates(transaction, dict(enumerate(todo)))
        assert {index for index, fate in said.items() if fate == "ours"} == set(ours)
        assert {index: fate for index, fate in said.items() if fate != "ours"} == {
            index: numbered(fate) for index, fate in expected.fates.items()
        }
        assert transaction.in_doubt is expected.in_doubt
        assert transaction.reusable is (expected.reusable and not wire.lost)
        assert transaction.answered is bool(journal and not journal[0].reply.startswith("421"))
        assert not transaction.in_doubt or transaction.undecided == transaction.accepted
        assert all(
            decision.reply.is_positive <= (decision.stage == "final") for decision in transaction.decisions.values()
        )
        event(f"reusable {transaction.reusable}, in doubt {transaction.in_doubt}, lost {wire.lost}")
        if not transaction.reusable:
            return
        assert (machine.state, machine.outstanding) == (ClientState.READY, 0)
        # A further transaction for those that were too many: it always has fewer recipients.
        assert len(transaction.overflow) < len(todo)
        todo = sorted(todo[index] for index in transaction.overflow)
        arrived += wire.arrived
