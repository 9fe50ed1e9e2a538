"""What happens to the daemon itself."""

from __future__ import annotations

from typing import ClassVar, Final

from mailrider.model.event import ERROR, WARNING, Event, EventLevel
from mailrider.model.value import value


@value
class DaemonReady(Event):
    """Everything is open. `configuration` is the file, or says that there is none."""

    configuration: str
    endpoints: int


@value
class Reloaded(Event):
    """A new configuration is in force; the attempts and sessions of the old one end by themselves."""

    configuration: str
    endpoints: int


@value
class ReloadRefused(Event):
    """The new configuration was not taken; the old one goes on."""

    level: ClassVar[EventLevel] = ERROR
    reason: str
    advice: str = "the old configuration stays in force: mend what the reason names, and reload"


@value
class EarlierConfigurationEnded(Event):
    """The last attempt and the last session of a configuration before this one have ended; or had to be cut off."""

    was_cut_off: bool


LEFT_AT_RELOAD: Final = "nobody delivers mail that waits there: add a queue with this location, and reload"


@value
class MailLeftBehind(Event):
    """A reload has taken a queue out of the configuration, or given it another `location`, and mail waits in the
    directory that it had; or a start has found such a directory in the state directory. `messages`: how many; what is
    being tried in this moment counts, too. None: it is not known, the queue could not be read. `queue` is its name,
    empty if it has none."""

    level: ClassVar[EventLevel] = WARNING
    queue: str
    location: str
    messages: int | None
    advice: str = LEFT_AT_RELOAD


@value
class OwnCertificateFaulty(Event):
    """A certificate of our own has expired, or does not hold yet: whoever checks it refuses to talk to us. It is used
    all the same. Told at a start, at a reload, and when it expires meanwhile. `owner`: whose it is."""

    level: ClassVar[EventLevel] = ERROR
    owner: str
    reason: str
    advice: str


@value
class OwnCertificateExpires(Event):
    """A certificate of our own expires soon: told once, days before. `owner`: whose it is."""

    level: ClassVar[EventLevel] = WARNING
    owner: str
    reason: str
    advice: str


@value
class OpenFilesShort(Event):
    """This process has nearly as many open files and connections (`count`) as the system allows it (`limit`)."""

    level: ClassVar[EventLevel] = ERROR
    count: int
    limit: int
    advice: str = "new clients are cut off, and mail waits: raise LimitNOFILE of the service (ulimit -n), and restart"


@value
class OpenFilesEnough(Event):
    """It may open files and connections again."""

    count: int
    limit: int


@value
class ClockJumped(Event):
    """The clock on the wall was set by so many seconds, or the machine slept so long. Mail waits by the time that has
    passed; signatures in DNS and certificates are judged by the new time."""

    level: ClassVar[EventLevel] = WARNING
    seconds: float
    advice: str = "the clock was set, or the machine slept: see that NTP runs; no mail is lost or expires by it"


@value
class SocketUnused(Event):
    """A socket that the service manager gave us is at no address that the configuration names."""

    address: str


@value
class RunningAsRoot(Event):
    """Whoever breaks into the daemon has the whole machine."""

    level: ClassVar[EventLevel] = WARNING
    advice: str = "let a service manager start it as a user of its own; see the guide"


@value
class LogLinesLost(Event):
    """Nobody read the log in time, and so many lines of it are lost."""

    level: ClassVar[EventLevel] = WARNING
    lines: int


@value
class LogNotReopened(Event):
    """The file of the log could not be opened again: the one that was open is written on."""

    level: ClassVar[EventLevel] = ERROR
    reason: str


@value
class WorkerReady(Event):
    """A worker accepts and delivers; `worker` is its number, from 0. `configuration`: which it has, the first that was
    read being 1."""

    worker: int
    pid: int
    configuration: int


@value
class WorkerDied(Event):
    """A worker has ended without being told to: by an exit code, or a signal (negative). Another is started in
    `again_in` seconds."""

    level: ClassVar[EventLevel] = WARNING
    worker: int
    pid: int
    code: int
    again_in: float


@value
class WorkerFailed(Event):
    """A worker could not begin. It is tried again in `again_in` seconds."""

    level: ClassVar[EventLevel] = ERROR
    worker: int
    reason: str
    again_in: float


@value
class WorkerHangs(Event):
    """A worker has said nothing for so many seconds, and is killed."""

    level: ClassVar[EventLevel] = WARNING
    worker: int
    pid: int
    seconds: float


@value
class EarlierWorkersAwaited(Event):
    """Workers of a supervisor that is gone still end: nothing begins before the last of them has left `lock`."""

    level: ClassVar[EventLevel] = WARNING
    lock: str


@value
class VersionChanged(Event):
    """A worker is of another version of the program, which was upgraded meanwhile: the supervisor ends, to be started
    anew."""

    level: ClassVar[EventLevel] = WARNING
    running: str
    installed: str


@value
class DaemonStopping(Event):
    """A signal says that this is the end."""

    signal: str
