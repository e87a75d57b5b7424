"""Whether what the zygote has imported is still what is on disk."""

import os
import sys
import sysconfig

STALE = "the packages it was made of have changed on disk"
"""How the zygote refuses to fork then; the agent starts another."""

Fingerprint = tuple[tuple[str, int, int], ...]


def fingerprint() -> Fingerprint:
    """Return what changes when packages come, go, or are replaced.

    An installer makes or removes entries in these directories. Nothing in them is looked at, so it
    costs some microseconds before each fork.
    """
    places = dict.fromkeys(
        [
            *sys.path,
            *(sysconfig.get_path(kind) for kind in ("purelib", "platlib")),
            os.path.realpath(sys.executable),
            f"{sys.prefix}/etc/jupyter",
            f"{sys.prefix}/etc/jupyter/jupyter_server_config.d",
            f"{sys.prefix}/share/jupyter/labextensions",
        ]
    )
    found = []
    for place in places:
        try:
            status = os.stat(place)  # noqa: PTH116 - called before each fork
        except OSError:
            continue
        found.append((place, status.st_ino, status.st_mtime_ns))
    return tuple(found)
