"""Whether a forked server would be the same as an executed one.

Modules that the zygote has imported are what they are, and what was read from the environment at
start-up or import was the zygote's. Where that would make a difference the child executes instead.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from carrel_agent.process.launch_spec import LaunchSpec

HARMLESS = frozenset(
    {
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONNOUSERSITE",  # honoured in resets.user_site_applies
        "PYTHONSTARTUP",  # read by interactive interpreters alone
        "PYTHONUNBUFFERED",  # a forked server writes line by line anyway
    }
)
READ_TOO_EARLY = ("PYTHON", "LD_", "MALLOC_", "GLIBC_TUNABLES", "GCONV_PATH", "PROMETHEUS_")
"""Beginnings of names that the dynamic loader, the interpreter or a preloaded module has read
before there was a user."""

READ_AT_IMPORT = frozenset(
    {
        "JUPYTER_ALLOW_INSECURE_WRITES",
        "JUPYTER_GATEWAY_MAX_REQUEST_RETRIES",
        "JUPYTER_PLATFORM_DIRS",
        "KERNEL_LAUNCH_TIMEOUT",
        "PYZMQ_BACKEND",
        "TORNADO_EXTENSION",
        "TORNADO_NO_EXTENSION",
        "TRAITLETS_APPLICATION_RAISE_CONFIG_FILE_ERROR",
        "prometheus_multiproc_dir",
    }
)
_SELINUX_ENFORCING = Path("/sys/fs/selinux/enforce")


def reason_to_execute(
    spec: LaunchSpec, *, preloaded: frozenset[str], user_site: Path | None
) -> str | None:
    """Return why this server must be executed, in words for its log, or None if it need not.

    Called as the user, since it looks into their home.

    Args:
        spec: What to start.
        preloaded: Top-level names that the zygote has imported from outside the standard library.
        user_site: The user's site-packages directory if their Python would look there.
    """
    if spec.argv is not None:
        return "it has a command of its own"
    return (
        environment_reason(spec.environment)
        or locale_reason(spec.environment)
        or site_reason(_names_in(user_site), preloaded)
        or selinux_reason(_SELINUX_ENFORCING)
    )


def _names_in(place: Path | None) -> list[str]:
    return [entry.name for entry in place.iterdir()] if place and place.is_dir() else []


def environment_reason(environment: Mapping[str, str]) -> str | None:
    """Return which variable comes too late for a forked process."""
    for name in sorted(environment):
        if name in READ_AT_IMPORT or (name.startswith(READ_TOO_EARLY) and name not in HARMLESS):
            return f"{name} is in its environment"
    return None


def locale_reason(environment: Mapping[str, str]) -> str | None:
    """Return the locale whose encoding is not UTF-8; the interpreter's is fixed at its start.

    The locale "C" counts as UTF-8: PEP 538 and PEP 540 make it so for a Python that starts in it.
    """
    chosen = next(
        (environment[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if environment.get(name)), "C"
    )
    if chosen in ("C", "POSIX"):
        return None
    encoding = chosen.partition("@")[0].partition(".")[2].lower().replace("-", "")
    return None if encoding == "utf8" else f"its locale {chosen} is not UTF-8"


def site_reason(entries: Iterable[str], preloaded: frozenset[str]) -> str | None:
    """Return what in the user's site-packages comes too late.

    Args:
        entries: The names in that directory.
        preloaded: See `reason_to_execute`.
    """
    for entry in sorted(entries):
        name = entry.partition(".")[0]
        if entry.endswith(".pth") or name == "usercustomize":
            return f"{entry} in its user's site-packages is read when Python starts"
        if name in preloaded and not entry.endswith((".dist-info", ".egg-info")):
            return f"its user's site-packages have a {name} of their own"
    return None


def selinux_reason(switch: Path) -> str | None:
    """Return a reason if SELinux enforces: a process changes its domain by executing only."""
    try:
        enforcing = switch.read_text(encoding="ascii").strip() == "1"
    except OSError:
        return None
    return "SELinux is enforcing" if enforcing else None
