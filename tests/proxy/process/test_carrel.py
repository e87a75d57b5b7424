"""Carrel's proxy with many workers: revocations, settings, certificates, sign-ins."""

import asyncio
import os
import signal
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from proxy.certificates import make_certificate
from proxy.hub import allowed
from proxy.process.program import (
    COMMAND,
    SECONDS,
    Program,
    carrel,
    is_alive,
    until,
    write_settings,
)
from proxy.process.test_reload import echo, open_socket_with
from proxy.running import KEY, SERVER_ID, guarded_route
from proxy.wire import Message, Upstream, connect, ok, open_upstream

from carrel_proxy.core.access import token_hash
from carrel_proxy.tls import CertificateFiles
from carrel_shared.wire.routes import Revocation, Revoke, Route, RouteChanges, RouteTable
from support.ports import free_port

pytestmark = pytest.mark.anyio

TOKEN = "Authorization: token abc"


@asynccontextmanager
async def a_hub(directory: Path) -> AsyncIterator[Upstream]:
    """A hub that lets everybody in."""

    def respond(request: Message) -> bytes:
        if request.target.endswith("/verdict"):
            return ok(allowed().model_dump_json().encode(), "Content-Type: application/json")
        return ok(b"", status="204 No Content")

    async with open_upstream(directory / "hub.sock") as hub:
        hub.respond = respond
        yield hub


async def put_table(program: Program, *routes: Route) -> None:
    table = RouteTable(epoch="e", number=1, routes=list(routes))
    status, said = await program.call("PUT", "/control/v1/table", table.json())
    assert status == 200, said


async def revoke(program: Program, revocation: Revocation) -> None:
    revoke = Revoke(revocation=revocation)
    changes = RouteChanges(epoch="e", base=1, number=2, changes=[revoke])
    status, said = await program.call("POST", "/control/v1/changes", changes.json())
    assert status == 200, said


async def test_a_revocation_reaches_sockets_of_all_workers_old_ones_too(short_dir: Path) -> None:
    async with (
        a_hub(short_dir),
        open_upstream() as upstream,
        carrel(short_dir, workers=2) as program,
    ):
        upstream.script = echo
        await put_table(program, guarded_route(upstream.target))
        olds = program.workers()
        sockets = []
        for _ in range(12):
            reader, writer = await asyncio.open_connection("127.0.0.1", program.port)
            sockets.append((reader, writer))
            await open_socket_with(reader, writer, "/user/alice/x", TOKEN)
            if len(sockets) == 6:
                await program.reload()
        assert any(map(is_alive, olds))
        assert len(program.workers()) > 2
        await revoke(program, Revocation(token_hash=token_hash(b"abc")))
        for reader, writer in sockets:
            async with asyncio.timeout(SECONDS):
                with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                    await reader.readexactly(1)
            writer.close()
        await until("the old workers' end", lambda: len(program.workers()) == 2)


async def test_sign_ins_at_any_worker_outlive_a_restart_without_the_hub(short_dir: Path) -> None:
    async with open_upstream() as upstream:
        route = guarded_route(upstream.target)
        async with a_hub(short_dir), carrel(short_dir, workers=2) as program:
            await put_table(program, route)
            for worker in program.workers():
                os.kill(worker, signal.SIGSTOP)
                async with connect(program.port) as client:
                    token = f"Authorization: token of-{worker}"
                    assert (await client.ask("/user/alice/x", token)).status == 200
                os.kill(worker, signal.SIGCONT)
            tokens = [f"Authorization: token of-{worker}" for worker in program.workers()]
            saved = short_dir / "state/verdicts.json"
            await until(
                "both sign-ins on disk",
                lambda: saved.exists() and saved.read_text().count(SERVER_ID) == 2,
            )
            program.process.kill()
        async with carrel(short_dir, workers=2) as program:
            for token in tokens * 3:
                async with connect(program.port) as client:
                    answer = await client.ask("/user/alice/x", token, "Connection: close")
                    assert answer.status == 200


async def test_counters_are_those_of_all_workers_also_of_old_ones(short_dir: Path) -> None:
    async with open_upstream() as upstream, carrel(short_dir, workers=2) as program:
        await put_table(program, Route(prefix="/", targets=[upstream.target]))

        async def asked() -> int:
            _, counters = await program.call("GET", "/control/v1/counters")
            read: int = counters["totals"]["requests"]["read"]["2xx"]
            return read

        for number in range(1, 9):
            async with connect(program.port) as client:
                assert (await client.ask("/", "Connection: close")).status == 200
            if number == 4:
                await program.reload()
        await until("the old workers' end", lambda: len(program.workers()) == 2)
        assert await asked() >= 4
        _, counters = await program.call("GET", "/control/v1/counters")
        (route,) = counters["routes"]
        assert route["requests"] >= 4


async def command(*arguments: str) -> tuple[int, str]:
    """Run `carrel-proxy` with these; return its exit status and what it said."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": os.environ["PATH"]},
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def test_two_do_not_keep_their_state_in_one_place(short_dir: Path) -> None:
    """Each would write its table over the other's."""
    async with carrel(short_dir) as program:
        values = {
            "bind": f"127.0.0.1:{free_port()}",
            "control_listen": f"unix:{short_dir}/other.sock",
            "hub_url": f"unix:{short_dir}/hub.sock",
            "state_dir": f"{short_dir}/state",
            "control_key": KEY,
            "hub_key": KEY,
        }
        write_settings(short_dir / "other.toml", values)
        status, said = await command("--config", f"{short_dir}/other.toml")
        assert status != 0
        assert f"process {program.process.pid}) keeps its state here" in said
        assert "Traceback" not in said


async def test_reload_takes_new_settings_or_says_what_is_wrong(short_dir: Path) -> None:
    config = short_dir / "carrel.toml"
    async with open_upstream() as upstream, carrel(short_dir) as program:
        values: dict[str, Any] = {
            "bind": f"127.0.0.1:{program.port}",
            "control_listen": f"unix:{short_dir}/control.sock",
            "hub_url": f"unix:{short_dir}/hub.sock",
            "state_dir": f"{short_dir}/state",
        }
        workers = program.workers()
        for wrong, words in (
            ({"idle_seconds": -1}, "proxy.idle_seconds"),
            ({"no_such": 1}, "no_such"),
            ({"bind": "127.0.0.1:1"}, "127.0.0.1:1"),
        ):
            if os.geteuid() == 0 and wrong.get("bind"):
                continue  # root may bind that
            write_settings(config, values | wrong)
            status, said = await command("reload", "--config", str(config))
            assert status == 1
            assert "nothing was changed" in said
            assert words in said
            assert program.workers() == workers
        other = free_port()
        new = {"bind": f"127.0.0.1:{other}", "default_target": upstream.target}
        write_settings(config, values | new)
        status, said = await command("reload", "--config", str(config))
        assert (status, said.split(" ")[0]) == (0, "reloaded")
        async with connect(other) as client:
            assert (await client.ask("/", "Connection: close")).status == 200
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", program.port)
        await until("the old worker's end", lambda: not any(map(is_alive, workers)))
    status, said = await command("reload", "--state-dir", f"{short_dir}/state")
    assert status == 1
    assert "no proxy runs" in said


async def test_a_worker_that_dies_comes_back_with_the_settings_of_the_last_reload(
    short_dir: Path,
) -> None:
    async with (
        open_upstream() as upstream,
        carrel(short_dir, default_target=upstream.target) as program,
    ):
        (short_dir / "carrel.toml").write_text("half an edit [")
        os.kill(program.workers()[0], signal.SIGKILL)
        await program.said("worker_back")
        async with connect(program.port) as client:
            assert (await client.ask("/", "Connection: close")).status == 200


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_proxy_stays_out_of_service_whoever_of_it_dies(
    short_dir: Path, workers: int
) -> None:
    """A health check must not send people back to a proxy because one of its workers was killed."""

    async def healthy() -> bool:
        async with connect(program.port) as client:
            answer = await client.ask("/_carrel/health", "Connection: close")
            return answer.status == 200

    async with carrel(short_dir, workers=workers) as program:
        assert await healthy()
        assert (await program.call("POST", "/control/v1/drain"))[0] == 200
        for killed in range(1, workers + 1):
            gone = program.workers()[0]
            os.kill(gone, signal.SIGKILL)
            await until("its end", partial(lambda pid: not is_alive(pid), gone))
            await program.said("worker_back", killed)
            for _ in range(3 * workers):
                assert not await healthy()
        await program.reload()
        await until("the old workers' end", lambda: len(program.workers()) == workers)
        for _ in range(3 * workers):
            assert not await healthy()
        assert (await program.call("DELETE", "/control/v1/drain"))[0] == 200
        os.kill(program.workers()[0], signal.SIGKILL)
        await program.said("worker_back", workers + 1)
        for _ in range(3 * workers):
            assert await healthy()


async def shown_certificate(port: int, host: str) -> bytes | None:
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname=host)
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    writer.close()
    return tls.getpeercert(binary_form=True)


def der(files: CertificateFiles) -> bytes:
    return ssl.PEM_cert_to_DER_cert(files.cert.read_text())


async def test_certificates_go_by_host_and_are_renewed_by_a_reload(short_dir: Path) -> None:
    hub = make_certificate(short_dir, "hub", "hub.example")
    alice = make_certificate(short_dir, "alice", "*.users.example")
    async with carrel(
        short_dir,
        tls_cert=str(hub.cert),
        tls_key=str(hub.key),
        tls_certificates=[{"cert": str(alice.cert), "key": str(alice.key)}],
    ) as program:
        assert await shown_certificate(program.port, "hub.example") == der(hub)
        assert await shown_certificate(program.port, "a.users.example") == der(alice)
        before = der(alice)
        make_certificate(short_dir, "alice", "*.users.example")
        assert der(alice) != before
        assert await shown_certificate(program.port, "a.users.example") == before
        await program.reload()
        await until("the old worker's end", lambda: len(program.workers()) == 1)
        assert await shown_certificate(program.port, "a.users.example") == der(alice)


async def test_checking_settings_starts_nothing(short_dir: Path) -> None:
    write_settings(short_dir / "carrel.toml", {"bind": "127.0.0.1:0"})
    status, said = await command("--config", f"{short_dir}/carrel.toml", "--check")
    assert status == os.EX_CONFIG
    assert "control_listen" in said
    assert await command("--check", "--port", "0") == (0, "")


async def test_a_handshake_in_progress_at_sigterm_is_served(short_dir: Path) -> None:
    files = make_certificate(short_dir, "hub", "hub.example")
    async with (
        open_upstream() as upstream,
        carrel(
            short_dir,
            tls_cert=str(files.cert),
            tls_key=str(files.key),
            default_target=upstream.target,
            drain_seconds=SECONDS,
        ) as program,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", program.port)
        async with connect(program.port) as another:
            another.send(b"\x16\x03\x01")  # connected, and known to be
            program.signal(signal.SIGTERM)
            await program.said("proxy_ending")
            trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
            await writer.start_tls(trust, server_hostname="hub.example")
            writer.write(b"GET / HTTP/1.1\r\nHost: hub.example\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
        assert await program.ended() == 0
