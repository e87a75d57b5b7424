"""O11: the race for a connection that waits. Its target closes it while a request is sent on it."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field

from proxy.running import Running, plain_route
from proxy.wire import Client, Upstream, ok, read_request

CLIENTS = 8
MOST_TURNS = 6
"""Of the loop, which target, proxy and clients share: what ends in the same turn is a race."""
PAUSE_IN = 3
"""One in so many times the target closes after its answer, and says nothing of it before."""


@dataclass
class Race:
    """What came of it.

    Attributes:
        outcomes: How often each method got each status.
        seen: How often the target was asked each thing.
        wrong: What must not happen.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


async def race(running: Running, upstream: Upstream, attempts: int, seed: int) -> Race:
    """Ask so many times for things that are to be asked for once."""
    found = Race()
    running.route(plain_route(upstream.target, "/race/"))
    chance = random.Random(seed)  # noqa: S311 - nothing secret

    async def some_turns() -> None:
        for _ in range(chance.randrange(MOST_TURNS)):
            await asyncio.sleep(0)

    async def target(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            name = request.target
            found.seen[name] += 1
            writer.write(ok(name.encode()))
            if chance.randrange(PAUSE_IN) == 0:
                await some_turns()
                if chance.randrange(2):
                    writer.transport.abort()
                return

    async def ask(client: Client, name: str) -> None:
        method = chance.choice(("POST", "POST", "POST", "GET"))
        await some_turns()
        client.get(name, *(("Content-Length: 2",) if method == "POST" else ()), method=method)
        if method == "POST":
            client.send(b"ab")
        answer = await client.response(method)
        found.outcomes[f"{method} {answer.status}"] += 1
        if answer.status == 200 and answer.body != name.encode():
            found.wrong.append(f"{name} was answered with {answer.body!r}")
        times = found.seen.pop(name, 0)
        if times > (1 if method == "POST" else 2) or (answer.status == 200 and not times):
            found.wrong.append(f"{method} {name}: {answer.status}, asked {times} times")

    async def client_of(number: int) -> None:
        async with running.client() as client:
            for attempt in range(attempts // CLIENTS):
                await ask(client, f"/race/{number}/{attempt}")

    upstream.script = target
    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(client_of(number))
    return found
