"""`carrel-proxy`: which of its two proxies is meant, and off it goes."""

import sys

from carrel_shared.deferred import light_imports
from carrel_shared.settings import process_environment


def main(arguments: list[str] | None = None) -> int:
    """Start the proxy, or do what is asked instead; return the exit status.

    A proxy that starts becomes another program in this process, so this does not return then.
    """
    given = sys.argv[1:] if arguments is None else arguments
    environ = process_environment()
    if given[:1] == ["reload"]:
        from carrel_proxy.process.command import reload

        return reload(given[1:], environ)
    with light_imports():
        from carrel_proxy.chp.options import is_meant

        if is_meant(given, environ):
            from carrel_proxy.chp.program import main as program
        else:
            from carrel_proxy.cli import main as program
    return program(given, environ)


if __name__ == "__main__":
    sys.exit(main())
