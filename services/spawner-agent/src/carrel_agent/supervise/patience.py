"""Asking what may never answer: a home on a lost file server, a name service a network away.

A thread that hangs in the kernel cannot be ended. So each question has a thread of its own, never
one of those that write the journal, and what is asked again meanwhile is not asked a second time.
"""

import asyncio
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, TypeVar

MOST_AT_ONCE = 256
"""While so many questions are without an answer, further ones wait."""
ROOM_SECONDS = 0.01
"""How often it is looked whether there is room for one more."""

T = TypeVar("T")
_asked: dict[Hashable, Future[Any]] = {}


async def within(seconds: float, question: Hashable, ask: Callable[[], T]) -> T:
    """Return what `ask` returns, or raise what it raises.

    Args:
        seconds: How long it is waited for.
        question: What is asked: an answer that is waited for already counts for this as well.

    Raises:
        TimeoutError: There is no answer in time. The thread goes on.
    """
    async with asyncio.timeout(seconds):
        while (  # noqa: ASYNC110 - who makes room is a thread
            answer := _asked.get(question) or _begun(question, ask)
        ) is None:
            await asyncio.sleep(ROOM_SECONDS)
        found: Future[T] = answer
        # What gives up waiting must not cancel it for the others.
        return await asyncio.shield(asyncio.wrap_future(found))


def _begun(question: Hashable, ask: Callable[[], Any]) -> Future[Any] | None:
    """Return an answer that is to come; None if there is no room for the question."""
    if len(_asked) >= MOST_AT_ONCE:
        return None
    answer = _asked[question] = Future()
    try:
        # A daemon: the agent's own end is not to wait for it.
        threading.Thread(target=_answer, args=(question, ask, answer), daemon=True).start()
    except RuntimeError:  # there is no thread to be had
        del _asked[question]
        return None
    return answer


def _answer(question: Hashable, ask: Callable[[], Any], answer: "Future[Any]") -> None:
    try:
        found = ask()
    except BaseException as error:
        del _asked[question]
        answer.set_exception(error)
    else:
        del _asked[question]
        answer.set_result(found)
