"""Seeing a server to its end, whatever breaks."""

import asyncio
import itertools
from collections.abc import Coroutine

import structlog

from carrel_agent.supervise.server import Server
from carrel_shared.backoff import backoff_seconds

log = structlog.get_logger(__name__)

FIRST_WAIT = 1.0


async def drive(server: Server, work: Coroutine[object, object, None]) -> None:
    """Do what a server's task begins with.

    A server that nobody drives could be neither stopped nor started again. So after a fault that
    nobody expected, such as a keeper that did not answer in time, it is taken up as by an agent
    that starts.
    """
    for failures in itertools.count():
        try:
            await work
        except Exception as error:
            log.error("server_not_driven", server_id=server.record.server_id, exc_info=error)
        else:
            return
        if server.ended:
            return
        await asyncio.sleep(backoff_seconds(failures, first=FIRST_WAIT))
        work = server.take_up()
