"""The header fields that a DKIM signature covers unless the settings say otherwise."""

from typing import Final

# RFC 6376 5.4.1, and what decides how a message is shown.
OVERSIGNED: Final = (
    "From",
    "Reply-To",
    "Subject",
    "Date",
    "To",
    "Cc",
    "Message-ID",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Autocrypt",
)
# Signed where they are; others on the way may rightly add them: a mailing list adds Sender and the List- ones, and who
# sends a message on adds the Resent- ones. RFC 8058 4 wants the List-Unsubscribe ones signed.
SIGNED: Final = (
    "Sender",
    "Resent-Date",
    "Resent-From",
    "Resent-Sender",
    "Resent-To",
    "Resent-Cc",
    "Resent-Message-ID",
    "List-Id",
    "List-Help",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Subscribe",
    "List-Post",
    "List-Owner",
    "List-Archive",
    "Feedback-ID",
)
