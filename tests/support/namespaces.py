"""Two network namespaces with a cable between them, which can be cut so that nobody is told."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from support.process_trees import end

HERE, THERE = "10.213.0.1", "10.213.0.2"


@dataclass
class Cable:
    """Two namespaces by name; `here` has the address `HERE`, `there` has `THERE`."""

    here: str
    there: str

    def run(self, namespace: str, *command: str, text: str | None = None) -> None:
        """Run a command in a namespace to its end."""
        subprocess.run(
            ["ip", "netns", "exec", namespace, *command],
            check=True,
            input=text,
            text=True,
            capture_output=True,
        )

    @contextmanager
    def process(
        self, namespace: str, arguments: Sequence[str], env: dict[str, str] | None = None
    ) -> Iterator[subprocess.Popen[str]]:
        """Run this Python with arguments in a namespace; it is ended at the end."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, *arguments],
            env=env,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            end(process)
            if process.stdout is not None:
                process.stdout.close()

    def cut(self) -> None:
        """Drop every packet between the two from now on."""
        rules = (
            "table inet cut {\n chain incoming { type filter hook input priority 0;"
            ' iifname "cable" drop; }\n chain outgoing { type filter hook output priority 0;'
            ' oifname "cable" drop; }\n}\n'
        )
        self.run(self.there, "nft", "-f", "-", text=rules)


@contextmanager
def cable() -> Iterator[Cable]:
    """Make the namespaces; needs root, iproute2 and nftables."""
    found = Cable(*(f"carrel-{os.getpid()}-{end}" for end in ("here", "there")))
    with ExitStack() as stack:
        for name in (found.here, found.there):
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "delete", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip(
            *("-n", found.here, "link", "add", "cable", "type", "veth"),
            *("peer", "name", "cable", "netns", found.there),
        )
        for name, address in ((found.here, HERE), (found.there, THERE)):
            _ip("-n", name, "address", "add", f"{address}/30", "dev", "cable")
            _ip("-n", name, "link", "set", "cable", "up")
        yield found


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
