"""What people and programs are told when a request cannot be served."""

from http import HTTPStatus

from carrel_proxy.core.answers import Reason, Trouble
from carrel_proxy.errors import (
    BadRequestError,
    BadResponseError,
    BusyError,
    HostAwayError,
    HubAwayError,
    ProxyError,
    TargetAwayError,
    WrongPeerError,
)

RETRY_SECONDS = 5

NOT_FOUND = Trouble(
    404, "There is nothing here", "No service has this address.", reason=Reason.NOT_FOUND
)
OTHER_HOST = Trouble(
    421,
    "This is another address",
    "Nothing is served under this name here. Use the address you were given, to the letter.",
    reason=Reason.OTHER_HOST,
)
NOT_SIGNED_IN = Trouble(
    403,
    "Not signed in",
    "This server needs a sign-in, or a token that is for it.",
    reason=Reason.NOT_SIGNED_IN,
)
NOT_ALLOWED = Trouble(
    403, "Not for you", "This token does not open this server.", reason=Reason.NOT_ALLOWED
)
FROM_ELSEWHERE = Trouble(
    403,
    "Not from there",
    "A page of another address asked for this with your sign-in, so it was not done. Open the"
    " server itself and do it there.",
    reason=Reason.CROSS_SITE,
)
SIGN_IN_LOOP = Trouble(
    403,
    "Signing in does not last",
    "The browser was signed in several times and still came without its cookie, or with two of the"
    " same name. Remove this site's cookies, see that they are allowed, and open the page again.",
    reason=Reason.SIGN_IN_FAILED,
)
SIGN_IN_LOST = Trouble(
    400,
    "This sign-in cannot be finished",
    "It took too long, or the browser did not send its cookie back. Open the server again; cookies"
    " must be allowed for this site.",
    reason=Reason.SIGN_IN_FAILED,
)
SIGN_IN_REFUSED = Trouble(
    403,
    "The hub did not confirm this sign-in",
    "It was used already, took too long, or belongs to another browser session. Open the server"
    " again.",
    reason=Reason.SIGN_IN_FAILED,
)
BUSY = Trouble(
    503,
    "Too much at once",
    "There are too many connections to this server just now. Close a few of its tabs, or wait.",
    RETRY_SECONDS,
    reason=Reason.CAPPED,
)
GATEWAY_TIMEOUT = Trouble(
    504,
    "No answer yet",
    "The server took the request and has not answered for a long time.",
    reason=Reason.NO_RESPONSE,
)


def spawn_link(hub_prefix: str, base_url: str, prefix: str) -> str | None:
    """Return the hub's page that starts the server of a prefix; None for anything else."""
    home = f"{base_url}user/"
    if not prefix.startswith(home):
        return None
    return f"{hub_prefix}spawn/{prefix.removeprefix(home).rstrip('/')}"


def trouble_of(error: ProxyError, spawn: str | None = None) -> Trouble:
    """Return what is said of a failure. Never how it looks inside.

    Args:
        spawn: Where the server that failed can be started.
    """
    if isinstance(error, BadRequestError):
        reason = error.reason
        phrase = HTTPStatus(error.status).phrase
        kind = Reason.TOO_SLOW if error.status == 408 else Reason.REFUSED
        return Trouble(error.status, phrase, f"The request was refused: {reason}.", reason=kind)
    if isinstance(error, BusyError):
        return BUSY
    if isinstance(error, HostAwayError):
        return Trouble(
            503,
            "The host does not answer",
            "The machine that this server is on cannot be reached just now. The server may be"
            " running there all the same; try again.",
            RETRY_SECONDS,
            reason=Reason.TARGET_AWAY,
        )
    if isinstance(error, TargetAwayError) and spawn is not None:
        return Trouble(
            503,
            "Your server does not answer",
            "It has stopped, or is just starting or stopping. It can be started again.",
            RETRY_SECONDS,
            (spawn, "Start the server"),
            Reason.TARGET_AWAY,
        )
    if isinstance(error, TargetAwayError):
        return Trouble(
            503,
            "Back in a moment",
            "This service does not answer just now. Running servers go on meanwhile.",
            RETRY_SECONDS,
            reason=Reason.TARGET_AWAY,
        )
    if isinstance(error, HubAwayError):
        return Trouble(
            503,
            "The hub does not answer",
            "Who you are cannot be checked just now. Your server goes on meanwhile; try again.",
            RETRY_SECONDS,
            reason=Reason.HUB_AWAY,
        )
    if isinstance(error, WrongPeerError):
        return Trouble(
            502,
            "This is not your server",
            "Something else answers in its place; nothing was sent to it. Tell an administrator.",
            reason=Reason.WRONG_PEER,
        )
    if isinstance(error, BadResponseError):
        return Trouble(
            502,
            "The answer makes no sense",
            "The server behind this address broke the protocol.",
            reason=Reason.BAD_RESPONSE,
        )
    return Trouble(
        500,
        "Something went wrong",
        "The proxy has failed. The log says how.",
        reason=Reason.FAILED,
    )
