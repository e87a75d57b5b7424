"""How a relay tells an edge what is wrong behind it, so that people are told once and by the edge.

The field cannot come from anybody else: fields of our own are removed from what servers answer.
"""

from carrel_proxy.errors import BadResponseError, ProxyError, TargetAwayError, WrongPeerError

TROUBLE_FIELD = b"X-Carrel-Trouble"

AWAY = b"away"
_WRONG_PEER = b"wrong-peer"
_BAD_RESPONSE = b"bad-response"
_FAILED = b"failed"


def word_of(error: ProxyError) -> bytes:
    """Return the word for an error that a relay met."""
    if isinstance(error, TargetAwayError):
        return AWAY
    if isinstance(error, WrongPeerError):
        return _WRONG_PEER
    return _BAD_RESPONSE if isinstance(error, BadResponseError) else _FAILED


def error_of(word: bytes) -> ProxyError:
    """Return the error that a relay's word stands for."""
    if word == AWAY:
        return TargetAwayError("nobody answers behind the relay")
    if word == _WRONG_PEER:
        return WrongPeerError("another account answers behind the relay")
    if word == _BAD_RESPONSE:
        return BadResponseError("the server behind the relay broke the protocol")
    return ProxyError("the relay has failed; its log says how")
