"""What is started, how, and with which settings. Decisions only.

The services are wired together by variables that are ours; everything else is the settings file's
and the caller's own `CARREL_...` variables'.
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from carrel_hub.up.accounts import Account
from carrel_hub.up.keys import Keys
from carrel_hub.up.layout import Layout
from carrel_hub.up.options import UpOptions

AGENT_NAME = "local"
PROXY_NAME = "edge"
PROXY_DRAIN_SECONDS = 2
"""A service is given eight seconds to end, and whoever pressed Ctrl-C waits for it."""
_ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FAILPOINT = "CARREL_FAILPOINT"


@dataclass(frozen=True, slots=True)
class Probe:
    """How a service shows that it is up: `path` answers 200 on the unix socket, or it accepts."""

    socket: Path
    path: str | None = None


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One process that `carrel up` keeps running.

    Attributes:
        first_start: Variables of its first start only.
        before: Run to its end before the first start, with the same account and environment.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    account: Account
    probe: Probe
    first_start: Mapping[str, str] = field(default_factory=dict)
    before: tuple[str, ...] | None = None
    config_text: bytes = field(default=b"", repr=False)
    version: str = ""

    @property
    def fingerprint(self) -> str:
        """Changes whenever a process started from this would behave differently."""
        seen = [
            self.version,
            list(self.argv),
            sorted(self.environment.items()),
            [self.account.uid, self.account.gid],
            hashlib.sha256(self.config_text).hexdigest(),
        ]
        return hashlib.sha256(json.dumps(seen).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the plan depends on besides the options.

    Attributes:
        own: Whom `carrel up` runs as; agent, keeper and pam run as the same.
        service: Whom hub and proxy run as.
        environ: The caller's environment.
        config_text: What the settings file says; the services read it themselves.
    """

    layout: Layout
    keys: Keys
    own: Account
    service: Account
    environ: Mapping[str, str] = field(repr=False)
    python: str
    keeper_main: Path
    version: str
    config_text: bytes = field(default=b"", repr=False)


def plan_services(options: UpOptions, around: Surroundings) -> list[ServiceSpec]:
    """Return the services in the order they are started and named."""
    layout, keys = around.layout, around.keys
    config = ("--config", str(options.config)) if options.config else ()
    python = (around.python, "-I")
    failpoint = {k: v for k, v in around.environ.items() if k == _FAILPOINT}

    def spec(
        name: str, argv: tuple[str, ...], wiring: Mapping[str, Any], probe: Probe, **more: Any
    ) -> ServiceSpec:
        account = around.service if name in ("hub", "proxy") else around.own
        prefix = {"keeper": "CARREL_AGENT__"}.get(name, f"CARREL_{name.upper()}__")
        return ServiceSpec(
            name=name,
            argv=argv,
            environment=_environment(prefix, wiring, account, around),
            account=account,
            probe=probe,
            config_text=around.config_text,
            version=around.version,
            **more,
        )

    services = [
        spec(
            "proxy",
            (*python, "-m", "carrel_proxy", *config),
            _proxy_wiring(options, layout, keys, _said_of_hub(around.config_text)),
            Probe(layout.proxy_control, "/control/v1/health"),
        ),
        spec(
            "hub",
            (*python, "-m", "carrel_hub", *config, "serve"),
            _hub_wiring(options, around),
            Probe(layout.hub_internal, "/internal/v1/health"),
            before=(*python, "-m", "carrel_hub", *config, "db", "upgrade"),
            first_start=failpoint,
        ),
        spec(
            "keeper",
            (*python, "-S", str(around.keeper_main), *config),
            _agent_wiring(around),
            Probe(layout.agent, "/agent/v1/health"),
            first_start=failpoint,
        ),
    ]
    if around.own.uid == 0:
        listen = ("--socket", str(layout.pam), "--uid", str(around.service.uid))
        argv = (*python, "-m", "carrel_agent.pam", *listen)
        services.insert(0, spec("pam", argv, {}, Probe(layout.pam)))
    return services


def _environment(
    prefix: str, wiring: Mapping[str, Any], account: Account, around: Surroundings
) -> dict[str, str]:
    """Build from empty: where programs and homes are, the caller's settings, and then ours."""
    environ = around.environ
    lang = environ.get("LANG", "")
    result = {
        "PATH": _ROOT_PATH if around.own.uid == 0 else environ.get("PATH", _ROOT_PATH),
        "LANG": lang if lang.lower().endswith(("utf-8", "utf8")) else "C.UTF-8",
        "HOME": account.home,
    }
    result |= {name: value for name, value in environ.items() if name.startswith(prefix)}
    for name, value in wiring.items():
        text = value if isinstance(value, str) else json.dumps(value)
        result[f"{prefix}{name.upper()}"] = text
    return result


def _proxy_wiring(
    options: UpOptions, layout: Layout, keys: Keys, said_of_hub: Mapping[str, Any]
) -> dict[str, Any]:
    wiring: dict[str, Any] = {
        "bind": str(options.bind),
        "base_url": options.base_url,
        "control_listen": f"unix:{layout.proxy_control}",
        "control_key": keys.hub_to_proxy,
        "name": PROXY_NAME,
        "hub_url": f"unix:{layout.hub_internal}",
        "hub_key": keys.proxy_to_hub,
        "default_target": f"unix:{layout.hub_public}",
        "state_dir": str(layout.state / "proxy"),
        "insecure": options.insecure,
        "drain_seconds": PROXY_DRAIN_SECONDS,
    }
    if "fleet_listen" in said_of_hub:  # the hub makes them, and renews them
        fleet = layout.state / "hub" / "fleet"
        pair = str(fleet / "edge.pem")
        wiring |= {"fleet_ca": str(fleet / "ca.pem"), "fleet_cert": pair, "fleet_key": pair}
    if options.tls_cert and options.tls_key:
        wiring |= {"tls_cert": str(options.tls_cert), "tls_key": str(options.tls_key)}
    return wiring


def _hub_wiring(options: UpOptions, around: Surroundings) -> dict[str, Any]:
    layout, keys = around.layout, around.keys
    wiring: dict[str, Any] = {
        "base_url": options.base_url,
        "listen": f"unix:{layout.hub_public}",
        "internal_listen": f"unix:{layout.hub_internal}",
        "state_dir": str(layout.state / "hub"),
        "console_key": keys.console,
        "proxies": [
            {
                "name": PROXY_NAME,
                "url": f"unix:{layout.proxy_control}",
                "key": keys.hub_to_proxy,
                "caller_key": keys.proxy_to_hub,
            }
        ],
        "agents": [
            {
                "name": AGENT_NAME,
                "url": f"unix:{layout.agent}",
                "key": keys.hub_to_agent,
                "caller_key": keys.agent_to_hub,
            }
        ],
    }
    said = _said_of_hub(around.config_text)
    if "api_url" not in said:
        wiring["api_url"] = f"{options.origin}{options.base_url}hub/api"
    if around.own.uid == 0:
        wiring["auth__pam_socket"] = f"unix:{layout.pam}"
    elif "authenticator" not in said.get("auth", {}):
        # Only root can check other people's passwords, and nobody else is to sign in here.
        wiring["auth__authenticator"] = "none"
    return wiring


def _said_of_hub(config_text: bytes) -> dict[str, Any]:
    """Return the `[hub]` table of the settings file; what is wrong with it the hub will say."""
    try:
        said = tomllib.loads(config_text.decode()).get("hub", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return {}
    return said if isinstance(said, dict) else {}


def _agent_wiring(around: Surroundings) -> dict[str, Any]:
    layout, keys = around.layout, around.keys
    wiring: dict[str, Any] = {
        "name": AGENT_NAME,
        "listen": f"unix:{layout.agent}",
        "key": keys.hub_to_agent,
        "hub_url": f"unix:{layout.hub_internal}",
        "hub_key": keys.agent_to_hub,
        "state_dir": str(layout.state / "agent"),
        "run_dir": str(layout.run),
    }
    if around.own.uid == 0:
        wiring["socket_group"] = around.service.group
        if caller := around.environ.get("SUDO_USER"):
            # Their clone, perhaps; and they are root whenever they like.
            wiring["trusted_owners"] = [caller]
    return wiring
