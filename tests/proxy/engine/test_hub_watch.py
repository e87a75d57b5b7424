"""A hub that hangs, and one that only takes its time."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

from proxy.running import Running, plain_route
from proxy.wire import Upstream, eventually, ok, open_upstream, read_request

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter

SERVER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(204)
        self.end_headers()
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


async def test_pages_of_a_stopped_hub_are_a_503_and_come_back_with_it(running: Running) -> None:
    command = [sys.executable, "-c", SERVER]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
    try:
        assert process.stdout is not None
        running.route(plain_route(f"http://127.0.0.1:{process.stdout.readline().strip()}"))
        async with running.client() as client:
            assert (await client.ask("/hub/home")).status == 204
            process.send_signal(signal.SIGSTOP)
            reply = await client.ask("/hub/home", "Sec-Fetch-Mode: navigate")
            assert (reply.status, reply.one("retry-after")) == (503, "5")
            process.send_signal(signal.SIGCONT)
            assert (await client.ask("/hub/home")).status == 204
    finally:
        process.kill()
        process.wait(60)
        if process.stdout is not None:
            process.stdout.close()


async def test_a_page_may_take_its_time_while_the_hub_is_well(
    running: Running, upstream: Upstream
) -> None:
    questions = 0
    asked_twice = asyncio.Event()

    async def slow(reader: Reader, writer: Writer) -> None:
        nonlocal questions
        request = await read_request(reader)
        if request.target == "/hub/health":
            questions += 1
            if questions == 2:
                asked_twice.set()
        else:
            await asked_twice.wait()
        writer.write(ok(request.target.encode()))

    upstream.script = slow
    async with running.client() as client:
        assert (await client.ask("/hub/slow")).body == b"/hub/slow"


async def test_others_than_the_hub_are_not_asked(running: Running, short_dir: Path) -> None:
    seen: list[str] = []
    go = asyncio.Event()

    async def slow(reader: Reader, writer: Writer) -> None:
        seen.append((await read_request(reader)).target)
        await go.wait()
        writer.write(ok())

    async with open_upstream(short_dir / "service") as service, running.client() as client:
        service.script = slow
        running.route(plain_route(service.target, "/services/x/"))
        client.get("/services/x/")
        await eventually(lambda: bool(seen))
        loop = asyncio.get_running_loop()
        running.proxy.edge.time = lambda: loop.time() + 3600
        running.proxy.deadlines.tick()
        go.set()
        assert (await client.response()).status == 200
    assert seen == ["/services/x/"]
