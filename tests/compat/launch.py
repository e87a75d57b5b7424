"""A Carrel that a black-box suite for JupyterHub-compatible hubs can be run against.

What it is to be is said in environment variables (README.md). It stays in the foreground, and ends
with all it started at SIGTERM.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from compat.opened import arrange, enter  # noqa: E402 - run as a file, it has no package

STAFF_SCOPES = ("list:users", "read:users", "admin:servers", "access:servers")


def hub_settings(env: Mapping[str, str]) -> dict[str, Any]:
    """Return the `[hub]` table."""
    return {
        "allow_named_servers": True,
        "named_server_limit": int(env["NAMED_LIMIT"]),
        "slow_spawn_seconds": 1.5,
        "slow_stop_seconds": 5,
        "concurrent_spawn_limit": 0,
        "auth": {
            "authenticator": "dummy",
            "dummy_password": env["USER_PASSWORD"],
            "allow_all": True,
            "admin_users": [env["ADMIN_USER"]],
            "blocked_users": ["conf-blocked"],
            "max_failures": 10_000,
            "max_failures_for_name": 10_000,
        },
        "profiles": {"default": profile(env)},
        "groups": {name: {} for name in ("conf-sharers", "conf-staff", "conf-lab")}
        | {"conf-useradmin": {}},
        "services": services(env),
        "roles": roles(),
    }


def profile(env: Mapping[str, str]) -> dict[str, Any]:
    """Return how servers are run: the suite's stand-in, which is made for JupyterHub."""
    passed_on = ("SLOW_SPAWN_DELAY", "REAL_SINGLEUSER")
    return {
        "command": ["/usr/bin/python3", "-E", f"{env['CONF_DIR']}/singleuser.py"],
        "contract": "jupyterhub",
        "environment": {name: env.get(name, "") for name in passed_on}
        | {"CONF_MARK": "from-spawner-environment"},
    }


def services(env: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the services that the suite talks to, or acts as."""
    secret, redirect = env["OAUTH_SECRET"], env["OAUTH_REDIRECT"]
    client = {"oauth_redirect_uri": redirect}
    return [
        {"name": "conf-admin", "api_token": env["ADMIN_TOKEN"], "admin": True},
        {
            "name": "conf-oauth",
            "api_token": secret,
            "oauth_client_id": env["OAUTH_ID"],
            "oauth_client_allowed_scopes": [
                "read:users:activity!user",
                "read:servers!user",
                "list:groups",
            ],
            **client,
        },
        {
            "name": "conf-quiet",
            "api_token": f"{secret}q",
            "oauth_client_id": env["OAUTH_QUIET_ID"],
            "oauth_no_confirm": True,
            **client,
        },
        {
            "name": "conf-private",
            "api_token": f"{secret}p",
            "oauth_client_id": env["OAUTH_PRIVATE_ID"],
            **client,
        },
        {
            "name": "conf-web",
            "api_token": env["WEB_TOKEN"],
            "url": env["WEB_URL"],
            "oauth_no_confirm": True,
            "info": {"hello": "world"},
        },
    ]


def roles() -> list[dict[str, Any]]:
    """Return who may do what beyond the roles that are always there."""
    open_to_all = [f"access:services!service=conf-{name}" for name in ("oauth", "quiet", "web")]
    return [
        {"name": "user", "scopes": ["self", *open_to_all]},
        {
            "name": "conf-sharer",
            "scopes": ["shares!user", "read:users:name", "read:groups:name"],
            "groups": ["conf-sharers"],
        },
        {
            "name": "conf-staff",
            "scopes": ["admin-ui", *(f"{scope}!group=conf-lab" for scope in STAFF_SCOPES)],
            "groups": ["conf-staff"],
        },
        {"name": "conf-useradmin", "scopes": ["admin:users"], "groups": ["conf-useradmin"]},
    ]


def agent_settings(work: Path) -> dict[str, Any]:
    """Return the `[agent]` table: one account runs everybody's servers."""
    found: dict[str, Any] = {
        "accounts": "shared-insecure",
        "shared_homes": f"{work}/home/{{username}}",
    }
    if os.geteuid() == 0:
        found["shared_account"] = "carrel-demo"
    return found


def toml(name: str, table: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a table; what is below it is written inline."""
    yield f"[{name}]"
    for key, value in table.items():
        yield f"{key} = {inline(value)}"


def inline(value: Any) -> str:
    """Return a value as TOML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(k)} = {inline(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(inline(item) for item in value) + "]"
    return json.dumps(value)


def write_settings(env: Mapping[str, str], work: Path) -> Path:
    """Write the settings file, readable by the hub: nothing in it is secret."""
    path = work / "carrel.toml"
    lines = [*toml("hub", hub_settings(env)), *toml("agent", agent_settings(work))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    path.chmod(0o644)
    return path


def main() -> int:
    """Run it."""
    env = os.environ
    if "REAL_SINGLEUSER" in env:  # ours too: it may lie in the same closed home
        enter([Path(env["REAL_SINGLEUSER"]), Path(sys.executable), ROOT / "tests" / "compat"])
        arrange()
    work = Path(env["WORKDIR"])
    base = env.get("BASE", "/")
    command = [
        str(Path(sys.executable).with_name("carrel")),
        "up",
        *("--bind", f"127.0.0.1:{env['PORT']}", "--base-url", base),
        *("--state-dir", str(work / "carrel"), "--config", str(write_settings(env, work))),
    ]
    if os.geteuid() == 0:
        command.append("--demo")
    if shutil.which("python3", path="/usr/bin") is None:
        print("tests/compat: /usr/bin/python3 is needed for the servers", file=sys.stderr)
        return 2
    running = subprocess.Popen(command, start_new_session=True)
    keep = env.get("CLEANUP_SERVERS", "1") == "0"

    def end(_number: int, _frame: object) -> None:
        # SIGTERM leaves notebooks running, SIGINT stops them first.
        running.send_signal(signal.SIGTERM if keep else signal.SIGINT)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    return running.wait()


if __name__ == "__main__":
    sys.exit(main())
