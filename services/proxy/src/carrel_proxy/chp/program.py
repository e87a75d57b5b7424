"""`carrel-proxy` in the place of configurable-http-proxy: from its command line to its end."""

import contextlib
import functools
import gc
import os
import resource
import socket
import ssl
import sys
from collections.abc import Iterator, Mapping, Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any

import httpx
import structlog
import uvloop

from carrel_proxy.chp import sockets, tls
from carrel_proxy.chp.api import HttpsRedirect, RoutesApi
from carrel_proxy.chp.dispatch import ChpDispatcher
from carrel_proxy.chp.forward import Rules
from carrel_proxy.chp.metrics import Metrics
from carrel_proxy.chp.metrics import families as chp_families
from carrel_proxy.chp.options import TOKEN_VARIABLE, Options, OptionsError, read_options
from carrel_proxy.chp.pages import TARGET_SECONDS, ErrorPages
from carrel_proxy.chp.table import ChpTable
from carrel_proxy.chp.targets import http_url
from carrel_proxy.control.counted import Counted
from carrel_proxy.control.metrics import MetricsPage, families, process_families
from carrel_proxy.core.exposition import render
from carrel_proxy.core.head import HeadLimits
from carrel_proxy.engine.access_log import open_access_log
from carrel_proxy.engine.counters import Counters
from carrel_proxy.engine.deadlines import NEVER, Deadlines
from carrel_proxy.engine.edge import Edge, Limits
from carrel_shared.addresses import AddressError
from carrel_shared.clock import Clock, SystemClock
from carrel_shared.lines import LAST_LINES_SECONDS, LineWriter
from carrel_shared.logging import configure_logging
from carrel_shared.serving import Listener, serve
from carrel_shared.tasks import TaskOwner

log = structlog.get_logger(__name__)

ENDED_BY_SIGNAL = 2
"""The exit status after SIGTERM and SIGINT; the original has it so."""
DRAIN_SECONDS = 1.0


class ChpProxy:
    """All parts, wired. Made inside the event loop that runs it."""

    def __init__(
        self, options: Options, *, clock: Clock | None = None, lines: LineWriter | None = None
    ) -> None:
        clock = clock or SystemClock()
        self.options = options
        self.tasks = TaskOwner()
        self.metrics = Metrics()
        self.counters = Counters()
        deadlines = Deadlines(clock)
        self.table = ChpTable(
            deadlines,
            clock,
            tls=functools.cache(lambda: tls.target_tls(options)),
            host_routing=options.host_routing,
            counters=self.counters,
        )
        if options.default_target is not None:
            self.table.put("/", {"target": options.default_target})
        self.pages = _error_pages(options)
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
        )
        self.counted = Counted(self.edge, clock)
        self.api = RoutesApi(self.table, options.token, self.metrics)

    async def metrics_text(self) -> str:
        """Return the page for Prometheus: the original's names, then those of the engine."""
        totals = self.counted.totals()
        return render(
            (
                *chp_families(self.metrics.snapshot()),
                *process_families(totals.process),
                *families(totals),
            )
        )

    async def start(
        self, public: Sequence[socket.socket], public_tls: ssl.SSLContext | None
    ) -> None:
        """Accept connections on the public sockets."""
        await self.edge.listen(public, public_tls)
        self.tasks.start(self.edge.tick(), name="tick")

    async def stop(self) -> None:
        """Let running requests finish for a moment, then end what is open."""
        await self.edge.drain(DRAIN_SECONDS)
        await self.tasks.close()
        self.table.close()
        await self.pages.close()


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
    """Return the limits on clients and targets; those that no option sets are the proxy's own."""
    silent = options.timeout
    waits = [seconds for seconds in (options.timeout, options.proxy_timeout) if seconds]
    return Limits(
        head=HeadLimits(head=64 * 1024, target=16 * 1024, fields=500),
        head_seconds=min(10.0, silent or 10.0),
        body_seconds=silent or 60.0,
        idle_seconds=options.keep_alive or NEVER,
        stall_seconds=silent or 300.0,
        response_seconds=min(waits, default=NEVER),
        vanished_seconds=60.0,
        handshake_seconds=10.0,
        pause_seconds=options.proxy_timeout or NEVER,
        leave_seconds=0.4,
    )


def _error_pages(options: Options) -> ErrorPages:
    if options.error_target is None:
        return ErrorPages(directory=options.error_path)
    url, unix_socket = http_url(options.error_target)
    verify = tls.target_tls(options)
    client = httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(verify=verify, trust_env=False, uds=unix_socket),
        timeout=TARGET_SECONDS,
        headers={"Accept-Encoding": "identity"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # one client's for no other
    )
    return ErrorPages(target=url, client=client)


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run until a signal; returns the exit status."""
    lines = LineWriter(sys.stderr.fileno())
    with contextlib.ExitStack() as stack:
        stack.callback(lines.settle, LAST_LINES_SECONDS)
        try:
            options = read_options(arguments, environ)
            configure_logging("proxy", level=options.log_level, to=lines)
            public_tls = tls.public_tls(options)
            tls.target_tls(options)
            api_tls = tls.api_tls(options)
            public = sockets.bind_public(options)
            api = sockets.bind_api(options)
            metrics = sockets.bind_metrics(options)
            redirect = sockets.bind_redirect(options)
            for listener in (*public, *api, *metrics, *redirect):
                stack.enter_context(listener)
            stack.enter_context(_pid_file(options.pid_file))
        except (OptionsError, AddressError) as error:
            sys.stderr.write(f"carrel-proxy: {error}\n")
            return 1
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        for option, reason in options.ignored:
            log.warning("option_ignored", option=option, reason=reason)
        if options.token is None:
            log.warning("api_open", reason=f"{TOKEN_VARIABLE} is not set")
        extra = Extra(metrics, redirect, lines)
        uvloop.run(run(options, public, api, extra, public_tls, api_tls))
    return ENDED_BY_SIGNAL


def api_listener_options(context: ssl.SSLContext | None) -> dict[str, Any]:
    """Return what makes a listener of uvicorn's speak TLS; nothing for plain HTTP."""
    if context is None:
        return {}
    return {"ssl_context_factory": lambda _config, _default: context}


class Extra:
    """Listeners beside the public one and the API, where they are asked for, and the log."""

    def __init__(
        self, metrics: list[socket.socket], redirect: list[socket.socket], lines: LineWriter
    ) -> None:
        self.metrics = metrics
        self.redirect = redirect
        self.lines = lines


async def run(
    options: Options,
    public: list[socket.socket],
    api: list[socket.socket],
    extra: Extra,
    public_tls: ssl.SSLContext | None,
    api_tls: ssl.SSLContext | None,
) -> None:
    """Run a proxy on bound sockets until a signal ends it."""
    proxy = ChpProxy(options, lines=extra.lines)
    listeners = [Listener(proxy.api, api, api_listener_options(api_tls))]
    if extra.metrics:
        listeners.append(Listener(MetricsPage(proxy.metrics_text), extra.metrics))
    if extra.redirect:
        port = options.redirect_to or options.port
        listeners.append(Listener(HttpsRedirect(port), extra.redirect))
    await proxy.start(public, public_tls)
    gc.freeze()  # what is there now stays: no collection need look at it
    log.info(
        "proxy_listening",
        public=options.socket or f"{options.ip or '*'}:{options.port}",
        api=options.api_socket or f"{options.api_ip or '*'}:{options.api_port}",
        tls=public_tls is not None,
        host_routing=options.host_routing,
    )
    try:
        await serve(listeners, graceful_seconds=1, on_stopping=proxy.edge.stop_listening)
    finally:
        await proxy.stop()
        log.info("proxy_stopped")


@contextlib.contextmanager
def _pid_file(path: Path | None) -> Iterator[None]:
    """Keep a file with the process's id while it runs."""
    if path is None:
        yield
        return
    try:
        path.write_text(f"{os.getpid()}\n")
    except OSError as error:
        raise OptionsError(f"--pid-file {path}: {error.strerror}") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
