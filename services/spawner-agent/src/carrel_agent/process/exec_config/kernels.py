"""Where kernels listen: on sockets in a directory of their user's own.

A kernel's loopback ports can be connected to by every account of the host, and what it prints is
told to whoever asks there. A socket in a directory that they cannot enter they cannot even open.
Users may change it back: `c.KernelManager.transport`.
"""

# ruff: noqa: PTH103, PTH108, PTH118

from __future__ import annotations

import atexit
import os
import shutil
import socket
import sys
import tempfile
import typing as t
import uuid

LONGEST_SOCKET = 107
"""Bytes of a unix socket's path (unix(7), less the final zero)."""


def keep_kernels_private(set_default: t.Callable[[t.Any, str, t.Any], None]) -> None:
    """Make sockets the default way to reach kernels. Call it as the user, before there is a kernel.

    Some homes cannot hold sockets, or have too long a name; connection files then go to a directory
    in /tmp, which ends with the server. Where that fails too, no kernel starts: ports would open up
    what they print to everybody, and whoever fills /tmp could bring that about.

    Args:
        set_default: `serving.set_default`.
    """
    from jupyter_client.connect import ConnectionFileMixin
    from jupyter_core.paths import jupyter_runtime_dir

    if not takes_sockets(jupyter_runtime_dir()):
        place = _temporary_directory()
        if place is None:
            sys.stderr.write(
                "[carrel] Kernels cannot start: neither your home nor /tmp takes unix sockets. Make"
                " room in one of them; or set c.KernelManager.transport = 'tcp' in your Jupyter"
                " configuration, if everybody on this host may read what your kernels print.\n"
            )
        else:
            os.environ["JUPYTER_RUNTIME_DIR"] = place
    set_default(ConnectionFileMixin, "transport", "ipc")


def takes_sockets(directory: str) -> bool:
    """Whether a kernel's sockets can be made in a directory; it is made if it is missing."""
    # As long as jupyter_client's own: a connection file's name with "-ipc-" and a small number.
    path = os.path.join(directory, f"kernel-{uuid.uuid4()}-ipc-99")
    if len(os.fsencode(path)) > LONGEST_SOCKET:
        return False
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(path)
        os.unlink(path)
    except OSError:
        return False
    return True


def _temporary_directory() -> str | None:
    try:
        place = tempfile.mkdtemp(prefix="carrel-kernels-", dir="/tmp")
    except OSError:
        return None
    atexit.register(_remove, place, os.getpid())
    return place if takes_sockets(place) else None


def _remove(place: str, owner: int) -> None:
    if os.getpid() == owner:  # not a child that was forked and runs its parent's exit functions
        shutil.rmtree(place, ignore_errors=True)
