"""`carrel-hub link NAME`: a one-time sign-in link, where no `carrel up` prints one."""

import argparse
import asyncio
from urllib.parse import urlsplit

from carrel_hub.cli import EXIT_OK, EXIT_USAGE, CommandError, in_plain_words, load_hub_settings
from carrel_hub.cli_hub import opened_hub
from carrel_hub.settings import HubSettings


def print_link(arguments: argparse.Namespace) -> int:
    """Make a link and print it with whom it signs in.

    Raises:
        CommandError: Nobody said where people reach Carrel, or NAME is no name.
    """
    settings = load_hub_settings(arguments.config)
    origin = _origin(settings, arguments.at)
    account = None if arguments.hub_only else arguments.name

    async def work() -> None:
        from carrel_hub.auth.links import create_link
        from carrel_hub.auth.names import InvalidNameError, normalise_name
        from carrel_hub.events import CONSOLE_ACTOR
        from carrel_hub.up.messages import sign_in_text
        from carrel_hub.users.accounts import get_or_create_user

        try:
            name = normalise_name(arguments.name)
            async with opened_hub(settings) as hub, hub.database.write() as session:
                user = await get_or_create_user(
                    session,
                    name,
                    at=hub.clock.now(),
                    account=account,
                    admin=True,
                    console=True,
                    actor=CONSOLE_ACTOR,
                )
                new = await create_link(session, hub, user)
            print(sign_in_text(name, f"{origin}{new.path}"), flush=True)
        except InvalidNameError as error:
            raise CommandError(f"{arguments.name!r} cannot be a user's name: {error}") from error

    asyncio.run(in_plain_words(work()))
    return EXIT_OK


def _origin(settings: HubSettings, at: str | None) -> str:
    said = settings.public_url or at
    parts = urlsplit(said or "")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise CommandError(
            "nobody said where people reach Carrel: set hub.public_url, or give --at with an"
            " address such as http://127.0.0.1:8000",
            status=EXIT_USAGE,
        )
    return f"{parts.scheme}://{parts.netloc}"
