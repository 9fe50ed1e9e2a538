"""A Django project in one file, run by itself: `python project.py OPTIONS WHAT`. It prints what Django returned.

Options of the backend stand in MAILERS where Django has that (6.1), else in EMAIL_BACKEND and MAILRIDER.
"""

import json
import os
import sys

import django
from django.conf import settings

import mailrider

ALL_OPTIONS = json.loads(sys.argv[1])
if "dns" in ALL_OPTIONS:
    ALL_OPTIONS["dns"] = mailrider.DNSSettings(**ALL_OPTIONS["dns"])
BACKEND = "mailrider.django.EmailBackend"
how: dict[str, object]
if django.VERSION >= (6, 1):
    how = {"MAILERS": {"default": {"BACKEND": BACKEND, "OPTIONS": ALL_OPTIONS}}}
else:
    how = {"EMAIL_BACKEND": BACKEND, "MAILRIDER": ALL_OPTIONS}
settings.configure(
    **how,
    DEFAULT_FROM_EMAIL="The Shop <shop@example.org>",
    SERVER_EMAIL="errors@example.org",
    ADMINS=["admin@example.net"] if django.VERSION >= (6, 0) else [("Admin", "admin@example.net")],
    USE_TZ=True,
)
django.setup()

from django.core import mail  # noqa: E402 # after the settings


def send() -> object:
    return mail.send_mail("Grüße", "Guten Tag.", None, ["Böb <b@example.net>"], html_message="<p>Guten Tag.</p>")


def attached() -> object:
    message = mail.EmailMultiAlternatives("Invoice", "See there.\n.\n", to=["b@example.net"], cc=["c@example.net"])
    message.bcc = ["d@example.net"]
    message.attach("ü.pdf", b"%PDF\r\n\0\xff", "application/pdf")
    message.attach_alternative("<p>See there.</p>", "text/html")
    return message.send()


def mass() -> object:
    return mail.send_mass_mail([("One", "1", None, ["b@example.net"]), ("Two", "2", None, ["c@example.net"])])


def admins() -> object:
    return mail.mail_admins("Trouble", "It is broken.")


def nobody() -> object:
    return mail.EmailMessage("Nobody", "", None, []).send()


def error() -> object:
    """Three messages, of which the second is for nobody that could be."""
    messages = [mail.EmailMessage("x", "y", None, [to]) for to in ("b@example.net", "@bad", "c@example.net")]
    backend = mail.mailers["default"] if hasattr(mail, "mailers") else mail.get_connection()
    try:
        return backend.send_messages(messages)
    except Exception as raised:
        return [type(raised).__name__, str(raised), raised.__notes__]


def injected() -> object:
    """Two messages, of which the first has a line end in its subject; not even a silent backend hides that."""
    backend = mail.mailers["default"] if hasattr(mail, "mailers") else mail.get_connection()
    backend.fail_silently = True
    subjects = "x\nBcc: evil@example.net", "x"
    try:
        return backend.send_messages([mail.EmailMessage(each, "y", None, ["b@example.net"]) for each in subjects])
    except ValueError as raised:
        return raised.__notes__


def silent() -> object:
    backend = mail.mailers["default"] if hasattr(mail, "mailers") else mail.get_connection()
    backend.fail_silently = True
    return backend.send_messages([mail.EmailMessage("x", "y", None, [to]) for to in ("@bad", "c@example.net")])


def forked() -> object:
    """As gunicorn does with preload: mail before the fork, in the child and in the parent."""
    before = send()
    child = os.fork()
    if child == 0:
        send()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return [before, status, send()]


def wrong() -> object:
    try:
        return send()
    except Exception as raised:
        return [type(raised).__name__, str(raised)]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(globals()[sys.argv[2]]()))
