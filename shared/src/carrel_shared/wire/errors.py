"""The one shape of an internal error."""

from carrel_shared.wire.base import WireReply


class ErrorBody(WireReply):
    """An error as every internal API reports it.

    Attributes:
        status: The HTTP status, repeated for readers of logs.
        code: A stable word for programs, such as `generation_stale`.
        message: What is wrong, where, and what to do, for people.
    """

    status: int
    code: str
    message: str
