"""`carrel-hub token agent NAME`: let a host join."""

import asyncio
import sys
from pathlib import Path

from carrel_hub.cli import EXIT_OK, CommandError, in_plain_words, load_hub_settings
from carrel_hub.cli_hub import opened_hub


def print_join_token(config: Path | None, name: str) -> int:
    """Make a join token and print it, with what to do with it on standard error."""
    settings = load_hub_settings(config)
    if settings.fleet_listen is None:
        raise CommandError(
            "hub.fleet_listen is not set, so no other machine can reach the hub; set it to an"
            " address such as 0.0.0.0:8444 and start the hub anew"
        )

    async def work() -> None:
        from carrel_hub.errors import HubError
        from carrel_hub.events import CONSOLE_ACTOR
        from carrel_hub.hosts.fleet import open_authority
        from carrel_hub.hosts.joining import issue_join_token

        try:
            async with opened_hub(settings) as hub:
                await open_authority(hub, make=True)
                async with hub.database.write() as session:
                    new = await issue_join_token(session, hub, name, actor=CONSOLE_ACTOR)
        except HubError as error:
            raise CommandError(error.message) from error
        print(new.text)
        port = (settings.fleet_listen or "").rpartition(":")[2]
        print(
            f"good once, until {new.expires_at:%H:%M %Z}; on the host:"
            f" carrel-agent join https://THIS_MACHINE:{port} - (and paste it)",
            file=sys.stderr,
        )

    asyncio.run(in_plain_words(work()))
    return EXIT_OK
