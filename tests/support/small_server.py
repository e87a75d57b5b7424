"""A notebook server's stand-in that can misbehave: `python small_server.py MODE`, run by an agent.

It finds its bound socket as a real one does: descriptor 3, named in CARREL_SERVER.
"""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

held: list[bytearray] = []


def serve(status: str = "200 OK") -> None:
    settings = json.loads(os.environ["CARREL_SERVER"])
    listener = socket.socket(fileno=settings["listen_fd"])
    listener.listen()
    print("serving", settings["base_url"], flush=True)
    while True:
        connection, _ = listener.accept()
        with connection:
            head = connection.recv(4096)
            if b" /" in head:
                body = json.dumps({"pid": os.getpid(), "uid": os.getuid()})
                reply = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
                connection.sendall(reply.encode())


def serve_port() -> None:
    """Listen where JUPYTERHUB_SERVICE_URL says, knowing nothing of Carrel."""
    place, _, prefix = os.environ["JUPYTERHUB_SERVICE_URL"].removeprefix("http://").partition("/")
    host, _, port = place.rpartition(":")
    known = sorted(name for name in os.environ if name.startswith(("CARREL_", "JUPYTER_")))
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, int(port)))
    listener.listen()
    print("serving", f"/{prefix}", Path.cwd(), os.getuid(), *known, flush=True)
    while True:
        connection, _ = listener.accept()
        with connection:
            if b"api" in connection.recv(4096):
                body = json.dumps({"uid": os.getuid()})
                head = f"HTTP/1.1 404 Not Found\r\nContent-Length: {len(body)}\r\n\r\n"
                connection.sendall(f"{head}{body}".encode())


def daemon(pid_file: str, *, keep_environment: bool) -> None:
    """Leave a process that is in nobody's session and forgot where it came from."""
    if os.fork():
        os.wait()
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    environment = dict(os.environ) if keep_environment else {}
    Path(pid_file).write_text(str(os.getpid()))
    os.execve("/bin/sleep", ["sleep", "1000"], environment)  # noqa: S606


def eat(size: int, *, in_a_child: bool) -> None:
    """Take that many bytes of memory, and hold them."""
    if not in_a_child:
        held.append(bytearray(os.urandom(1024) * (size // 1024)))
        print("ate", size, flush=True)
    elif (pid := os.fork()) == 0:
        held.append(bytearray(os.urandom(1024) * (size // 1024)))
        os._exit(0)
    else:
        print("child ended with", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def count_forks() -> int:
    """Return how many children may be made, and leave them running."""
    for count in range(1000):
        try:
            if os.fork() == 0:
                time.sleep(1000)
        except BlockingIOError:
            return count
    return 1000


def swarm(size: int) -> None:
    """Leave daemons that no session, no parent and no environment leads to, and one that forks."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for count in range(size):
        if os.fork() == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            while count == 0:
                if os.fork():
                    os._exit(0)
                os.setsid()
                time.sleep(0.001)
            os.execve("/bin/sleep", ["sleep", "1000"], {})  # noqa: S606
    print("the swarm is out", flush=True)


def count_aloud(most: int) -> None:
    """Print more than one file of the log holds."""
    for number in range(most):
        print("number", number, "x" * 40)
    sys.stdout.flush()


def main() -> None:
    mode, *arguments = sys.argv[1:]
    if mode == "silent":
        print("I say nothing useful", flush=True)
        time.sleep(1000)
    elif mode == "exit":
        print("something is missing: libfoo.so", file=sys.stderr, flush=True)
        sys.exit(int(arguments[0]))
    elif mode == "broken":
        serve("500 Internal Server Error")
    elif mode == "stubborn":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        serve()
    elif mode == "flood":
        if os.fork() == 0:
            while True:
                os.write(1, b"x" * 4095 + b"\n")
        serve()
    elif mode == "eat":
        eat(int(arguments[0]), in_a_child=arguments[1:] == ["child"])
        serve()
    elif mode == "swarm":
        swarm(int(arguments[0]))
        serve()
    elif mode == "forks":
        print("forks", count_forks(), flush=True)
        serve()
    elif mode == "count":
        signal.signal(signal.SIGUSR1, lambda *_: count_aloud(int(arguments[0])))
        serve()
    elif mode == "port":
        signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
        serve_port()
    elif mode == "daemon":
        daemon(arguments[0], keep_environment=False)
        daemon(arguments[1], keep_environment=True)
        serve()
    else:
        signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
        serve()


if __name__ == "__main__":
    main()
