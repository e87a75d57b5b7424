"""`carrel-proxy` in the place of configurable-http-proxy: from its command line to its end."""

import contextlib
import functools
import os
import socket
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any

import httpx
import structlog

from carrel_proxy.chp import sockets, tls
from carrel_proxy.chp.api import HttpsRedirect, RoutesApi
from carrel_proxy.chp.arguments import TOKEN_VARIABLE, OptionsError
from carrel_proxy.chp.dispatch import ChpDispatcher
from carrel_proxy.chp.forward import Rules
from carrel_proxy.chp.metrics import Metrics
from carrel_proxy.chp.metrics import families as chp_families
from carrel_proxy.chp.options import Options, read_options
from carrel_proxy.chp.pages import TARGET_SECONDS, ErrorPages
from carrel_proxy.chp.shared import ChpShared
from carrel_proxy.chp.storage import RouteFile
from carrel_proxy.chp.table import ChpTable
from carrel_proxy.chp.targets import http_url
from carrel_proxy.control.counted import Counted
from carrel_proxy.control.metrics import MetricsPage, families, process_families
from carrel_proxy.core.exposition import render
from carrel_proxy.core.head import HeadLimits
from carrel_proxy.engine.access_log import EVENTS_A_SECOND, open_access_log
from carrel_proxy.engine.counters import Counters
from carrel_proxy.engine.deadlines import NEVER, TICK_SECONDS, Deadlines
from carrel_proxy.engine.edge import Edge, Limits
from carrel_proxy.engine.kept import Kept
from carrel_proxy.process.crew import Crew
from carrel_proxy.process.launch import Run, is_reload, launch, report_failure
from carrel_shared.addresses import AddressError
from carrel_shared.clock import Clock, SystemClock
from carrel_shared.lines import LineWriter
from carrel_shared.logging import configure_logging
from carrel_shared.serving import Listener
from carrel_shared.settings import process_environment
from carrel_shared.tasks import TaskOwner

log = structlog.get_logger(__name__)

ENDED_BY_SIGNAL = 2
"""The exit status after SIGTERM and SIGINT; the original has it so."""
KEPT_SECONDS = 60.0
"""How long connections to targets on this machine are kept for requests that can be repeated."""
DRAIN_SECONDS = 1.5
"""JupyterHub kills what is there two seconds after it asked it to end."""


class ChpProxy:
    """All parts, wired. Made inside the event loop that runs it."""

    def __init__(
        self,
        options: Options,
        *,
        clock: Clock | None = None,
        lines: LineWriter | None = None,
        crew: Crew | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self.options = options
        self.crew = crew or Crew()
        self.tls: ssl.SSLContext | None = None
        self.tasks = TaskOwner()
        self.metrics = Metrics()
        self.counters = Counters()
        deadlines = Deadlines(clock)
        kept = Kept(KEPT_SECONDS)
        self.table = ChpTable(
            deadlines,
            clock,
            tls=functools.cache(lambda: tls.target_tls(options)),
            host_routing=options.host_routing,
            counters=self.counters,
            kept=kept,
        )
        if options.default_target is not None:
            self.table.put("/", {"target": options.default_target})
        self.pages = _error_pages(options, deadlines)
        dispatcher = ChpDispatcher(
            self.table,
            rules_of(options),
            self.pages,
            self.metrics,
            host_routing=options.host_routing,
        )
        self.edge = Edge(
            dispatcher,
            limits_of(options),
            deadlines=deadlines,
            tasks=self.tasks,
            default_host=f"{options.ip or 'localhost'}:{options.port}",
            trusted_peers=options.trusted_peers,
            counters=self.counters,
            access_log=open_access_log(options.access_log, lines, clock, as_json=False),
            kept=kept,
        )
        self.counted = Counted(self.edge, clock)
        file = RouteFile(options.storage) if options.storage is not None else None
        self.shared = ChpShared(self.crew, self.table, self.metrics, self.counted, file)
        self.crew.snapshot = self.shared.snapshot
        self.crew.take = self.shared.take
        self.api = RoutesApi(self.table, options.token, self.metrics, self.shared)

    async def metrics_text(self) -> str:
        """Return the page for Prometheus: the original's names, then those of the engine."""
        totals, metrics = await self.shared.counts()
        return render(
            (*chp_families(metrics), *process_families(totals.process), *families(totals))
        )

    # --- alone, as tests run it ---

    async def start(
        self, public: Sequence[socket.socket], public_tls: ssl.SSLContext | None
    ) -> None:
        """Accept connections on the public sockets."""
        self.tls = public_tls
        await self.accept(public)

    async def stop(self) -> None:
        """Let running requests finish for a moment, then end what is open."""
        await self.edge.drain(DRAIN_SECONDS)
        await self.close()

    # --- as one of several workers ---

    def restore(self, kept: Mapping[str, str]) -> None:
        self.shared.restore(kept)

    def snapshot(self) -> bytes:
        return self.shared.snapshot()

    def take(self, snapshot: bytes) -> None:
        self.shared.take(snapshot)

    async def accept(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections on the public sockets."""
        await self.edge.listen(sockets, self.tls)
        self.tasks.start(self.edge.tick(), name="tick")
        options = self.options
        log.info(
            "proxy_listening",
            public=options.socket or f"{options.ip or '*'}:{options.port}",
            api=options.api_socket or f"{options.api_ip or '*'}:{options.api_port}",
            tls=self.tls is not None,
            host_routing=options.host_routing,
        )

    def lead(self) -> None:
        """Nothing is done unasked."""

    async def unlead(self) -> None:
        """Nothing is left undone: what was answered is written down."""

    def disown(self) -> None:
        """Nothing is written unasked."""

    def listeners(self, found: dict[str, list[socket.socket]]) -> list[Listener]:
        options = self.options
        context = tls.api_tls(options)
        result = [Listener(self.api, found["api"], api_listener_options(context))]
        if "metrics" in found:
            result.append(Listener(MetricsPage(self.metrics_text), found["metrics"]))
        if "redirect" in found:
            port = options.redirect_to or options.port
            result.append(Listener(HttpsRedirect(port), found["redirect"]))
        return result

    async def close(self) -> None:
        if not self.crew.leads:
            self.shared.say_farewell()
        await self.tasks.close()
        self.table.close()
        await self.pages.close()
        log.info("proxy_stopped")


def rules_of(options: Options) -> Rules:
    """Return how requests are forwarded."""
    rewrite = options.protocol_rewrite
    return Rules(
        x_forward=options.x_forward,
        prepend_path=options.prepend_path,
        include_prefix=options.include_prefix,
        change_origin=options.change_origin,
        auto_rewrite=options.auto_rewrite,
        protocol_rewrite=rewrite.encode("ascii") if rewrite is not None else None,
        custom=tuple(
            (name.encode("ascii"), value.encode("ascii")) for name, value in options.custom_headers
        ),
    )


def limits_of(options: Options) -> Limits:
    """Return the limits on clients and targets; those that no option sets are the proxy's own.

    What an option says is never shortened: a limit begins at the last tick, up to `TICK_SECONDS`
    ago, and a stream with a pause just below it would be cut.
    """
    silent = _in_full(options.timeout)
    target_silent = _in_full(options.proxy_timeout)
    answer = min((seconds for seconds in (silent, target_silent) if seconds), default=NEVER)
    return Limits(
        head=HeadLimits(head=64 * 1024, target=16 * 1024, fields=500),
        head_seconds=min(10.0, silent or 10.0),
        body_seconds=silent or 60.0,
        idle_seconds=_in_full(options.keep_alive) or NEVER,
        stall_seconds=silent or 300.0,
        response_seconds=answer,
        vanished_seconds=60.0,
        handshake_seconds=10.0,
        pause_seconds=answer,
        leave_seconds=0.4,
    )


def _in_full(seconds: float | None) -> float | None:
    return seconds + TICK_SECONDS if seconds else None


def _error_pages(options: Options, deadlines: Deadlines) -> ErrorPages:
    if options.error_target is None:
        return ErrorPages(deadlines, directory=options.error_path)
    url, unix_socket = http_url(options.error_target)
    verify = tls.target_tls(options)
    client = httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(verify=verify, trust_env=False, uds=unix_socket),
        timeout=TARGET_SECONDS,
        headers={"Accept-Encoding": "identity"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # one client's for no other
    )
    return ErrorPages(deadlines, target=url, client=client)


def api_listener_options(context: ssl.SSLContext | None) -> dict[str, Any]:
    """Return what makes a listener of uvicorn's speak TLS; nothing for plain HTTP."""
    if context is None:
        return {}
    return {"ssl_context_factory": lambda _config, _default: context}


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Start the proxy; return the exit status if it does not start."""
    try:
        options = read_options(arguments, environ)
        configure_logging("proxy", level=options.log_level)
        tls.public_tls(options)
        tls.target_tls(options)
        tls.api_tls(options)
        if not options.check:
            _start(options, arguments, environ)
    except (OptionsError, AddressError, OSError) as error:
        sys.stderr.write(f"carrel-proxy: {error}\n")
        report_failure(str(error), environ)
        return 1
    return 0


def _start(options: Options, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    with contextlib.ExitStack() as stack:
        if options.pid_file is not None and not is_reload(environ):
            stack.callback(options.pid_file.unlink, missing_ok=True)
            _write_pid(options.pid_file)
        for option, reason in options.ignored:
            log.warning("option_ignored", option=option, reason=reason)
        if options.token is None:
            log.warning("api_open", reason=f"{TOKEN_VARIABLE} is not set")
        launch(plan_of(options, arguments), environ)


def plan_of(options: Options, arguments: Sequence[str]) -> Run:
    """Return what the parent is to do."""
    return Run(
        arguments=arguments,
        wanted=sockets.wanted(options),
        worker=["chp", *arguments],
        workers=options.workers,
        drain_seconds=DRAIN_SECONDS,
        deadline_seconds=options.reload_deadline,
        exit_status=ENDED_BY_SIGNAL,
        log_level=options.log_level,
        pid_file=str(options.pid_file.absolute()) if options.pid_file is not None else "",
    )


def _write_pid(path: Path) -> None:
    try:
        path.write_text(str(os.getpid()))
    except OSError as error:
        raise OptionsError(f"--pid-file {path}: {error.strerror}") from error


def worker(arguments: Sequence[str], lines: LineWriter) -> Callable[[Crew], ChpProxy]:
    """Return what makes a worker's proxy, inside its event loop."""
    options = read_options(arguments, process_environment())
    configure_logging("proxy", level=options.log_level, to=lines, most_a_second=EVENTS_A_SECOND)
    public_tls = tls.public_tls(options)

    def make(crew: Crew) -> ChpProxy:
        proxy = ChpProxy(options, lines=lines, crew=crew)
        proxy.tls = public_tls
        return proxy

    return make
