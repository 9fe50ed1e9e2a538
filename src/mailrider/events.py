"""What happens, as values: `on_event` of `Remote`, `Smarthost` and `Queue` is called with one of these.

    def listen(event: mailrider.events.Event) -> None:
        if isinstance(event, mailrider.events.RecipientDone):
            print(event.outcome.status)

An `Emit` is a function that takes any event. New events may come with any version; let those pass that you do not know.
"""

from mailrider.dkim.sign import Unsigned as Unsigned
from mailrider.endpoint.pipeline.check import MessageChecked as MessageChecked
from mailrider.model.daemon_event import DaemonReady as DaemonReady
from mailrider.model.daemon_event import DaemonStopping as DaemonStopping
from mailrider.model.daemon_event import EarlierConfigurationEnded as EarlierConfigurationEnded
from mailrider.model.daemon_event import EarlierWorkersAwaited as EarlierWorkersAwaited
from mailrider.model.daemon_event import LogLinesLost as LogLinesLost
from mailrider.model.daemon_event import LogNotReopened as LogNotReopened
from mailrider.model.daemon_event import MailLeftBehind as MailLeftBehind
from mailrider.model.daemon_event import Reloaded as Reloaded
from mailrider.model.daemon_event import ReloadRefused as ReloadRefused
from mailrider.model.daemon_event import RunningAsRoot as RunningAsRoot
from mailrider.model.daemon_event import SocketUnused as SocketUnused
from mailrider.model.daemon_event import VersionChanged as VersionChanged
from mailrider.model.daemon_event import WorkerDied as WorkerDied
from mailrider.model.daemon_event import WorkerFailed as WorkerFailed
from mailrider.model.daemon_event import WorkerHangs as WorkerHangs
from mailrider.model.daemon_event import WorkerReady as WorkerReady
from mailrider.model.endpoint_event import AddressLeftOut as AddressLeftOut
from mailrider.model.endpoint_event import AliasUnusable as AliasUnusable
from mailrider.model.endpoint_event import ClientConnected as ClientConnected
from mailrider.model.endpoint_event import ClientCutOff as ClientCutOff
from mailrider.model.endpoint_event import ClientLeft as ClientLeft
from mailrider.model.endpoint_event import ClientRefused as ClientRefused
from mailrider.model.endpoint_event import ClientTurnedAway as ClientTurnedAway
from mailrider.model.endpoint_event import EndpointClosed as EndpointClosed
from mailrider.model.endpoint_event import EndpointOpened as EndpointOpened
from mailrider.model.endpoint_event import LoginFailed as LoginFailed
from mailrider.model.endpoint_event import LoginHeldBack as LoginHeldBack
from mailrider.model.endpoint_event import MailMended as MailMended
from mailrider.model.endpoint_event import MailRefused as MailRefused
from mailrider.model.endpoint_event import MailTaken as MailTaken
from mailrider.model.event import AddressFailed as AddressFailed
from mailrider.model.event import AnswerValidated as AnswerValidated
from mailrider.model.event import Bug as Bug
from mailrider.model.event import CandidateRefused as CandidateRefused
from mailrider.model.event import CandidatesFound as CandidatesFound
from mailrider.model.event import ConnectionAwaited as ConnectionAwaited
from mailrider.model.event import ConnectionClosed as ConnectionClosed
from mailrider.model.event import ConnectionJudged as ConnectionJudged
from mailrider.model.event import ConnectionOpened as ConnectionOpened
from mailrider.model.event import ConnectionReused as ConnectionReused
from mailrider.model.event import Dialogue as Dialogue
from mailrider.model.event import DNSSECValidationFails as DNSSECValidationFails
from mailrider.model.event import DNSSECValidationWorks as DNSSECValidationWorks
from mailrider.model.event import DNSServerUnfit as DNSServerUnfit
from mailrider.model.event import Emit as Emit
from mailrider.model.event import Event as Event
from mailrider.model.event import FellBackToClear as FellBackToClear
from mailrider.model.event import LimitReached as LimitReached
from mailrider.model.event import LimitsUncounted as LimitsUncounted
from mailrider.model.event import LookupDidFail as LookupDidFail
from mailrider.model.event import NothingEnforced as NothingEnforced
from mailrider.model.event import RecipientSettled as RecipientSettled
from mailrider.model.event import RootKeysMissing as RootKeysMissing
from mailrider.model.event import SecurityUnavailable as SecurityUnavailable
from mailrider.model.event import ServerTrustChanged as ServerTrustChanged
from mailrider.model.event import TestingPolicyMissed as TestingPolicyMissed
from mailrider.model.queue_event import AttemptInterrupted as AttemptInterrupted
from mailrider.model.queue_event import DestinationDown as DestinationDown
from mailrider.model.queue_event import DestinationUp as DestinationUp
from mailrider.model.queue_event import HeldAfterDeaths as HeldAfterDeaths
from mailrider.model.queue_event import LeaseLost as LeaseLost
from mailrider.model.queue_event import MessageQueued as MessageQueued
from mailrider.model.queue_event import NotificationDropped as NotificationDropped
from mailrider.model.queue_event import NotificationQueued as NotificationQueued
from mailrider.model.queue_event import OperatorActed as OperatorActed
from mailrider.model.queue_event import OutcomeUnrecorded as OutcomeUnrecorded
from mailrider.model.queue_event import QueueAvailable as QueueAvailable
from mailrider.model.queue_event import QueueHasSpace as QueueHasSpace
from mailrider.model.queue_event import QueueRecovered as QueueRecovered
from mailrider.model.queue_event import QueueShort as QueueShort
from mailrider.model.queue_event import QueueUnavailable as QueueUnavailable
from mailrider.model.queue_event import RecipientDone as RecipientDone
from mailrider.model.queue_event import RecipientsUnreadable as RecipientsUnreadable
from mailrider.model.tls_session import TLSHostRefused as TLSHostRefused
from mailrider.model.tls_session import TLSSessionSeen as TLSSessionSeen
from mailrider.policy.sts.events import CacheFault as CacheFault
from mailrider.policy.sts.events import PolicyExpired as PolicyExpired
from mailrider.policy.sts.events import PolicyFetched as PolicyFetched
from mailrider.policy.sts.events import PolicyFetchFailed as PolicyFetchFailed
from mailrider.policy.sts.events import PolicyLinesIgnored as PolicyLinesIgnored
from mailrider.policy.sts.events import RecordLookupFailed as RecordLookupFailed
from mailrider.policy.sts.events import RecordUnusable as RecordUnusable
from mailrider.policy.sts.events import RefreshCrashed as RefreshCrashed
from mailrider.reporting.event import TLSReportSettled as TLSReportSettled
from mailrider.reporting.event import TLSReportsHeldUp as TLSReportsHeldUp
from mailrider.reporting.event import TLSReportsResumed as TLSReportsResumed
from mailrider.signing.keys import KeyMade as KeyMade
