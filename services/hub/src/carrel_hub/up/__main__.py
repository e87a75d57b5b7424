"""The program `carrel`."""

import os
import sys
from collections.abc import Sequence

from carrel_hub import __version__
from carrel_hub.up.errors import UpError
from carrel_hub.up.logfile import complain, say
from carrel_hub.up.options import build_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    arguments = build_parser(__version__).parse_args(argv)
    try:
        match arguments.command:
            case "up":
                from carrel_hub.up.run import run_up

                return run_up(arguments, os.environ)
            case "link":
                from carrel_hub.up.commands import run_link

                return run_link(arguments, os.environ)
            case "join-token":
                from carrel_hub.up.commands import run_join_token

                return run_join_token(arguments, os.environ)
            case "status":
                from carrel_hub.up.commands import run_status

                return run_status(arguments, os.environ)
            case _:
                from carrel_hub.up.accounts import remove_demo_account

                say(remove_demo_account())
                return 0
    except UpError as error:
        complain(str(error))
        return error.status
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        complain(f"{place}{error.strerror or error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
