"""A small service that runs several times over: `replica.py SOCKET NAME LOG`.

Every request is a line of the log: name, method, path. GET is answered at once, POST after its body
was read; both take a moment, so that some are always under way when it ends.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from carrel_shared.addresses import UnixAddress, bind_address
from carrel_shared.serving import Listener, serve

DRAIN_SECONDS = 30.0


def make_app(name: str, log: int) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        os.write(log, f"{name} {scope['method']} {scope['path']}\n".encode())
        await asyncio.sleep(0.002)
        fields = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    return app


def main(path: str, name: str, log: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    listening = bind_address(UnixAddress(path))
    asyncio.run(
        serve(
            [Listener(make_app(name, descriptor), [listening], drains=True)],
            on_started=lambda: print("started", flush=True),
            drain_seconds=DRAIN_SECONDS,
        )
    )
    Path(path).unlink(missing_ok=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
