"""`carrel-hub db`: bring a database to this version, back it up, restore it."""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from carrel_hub.cli import (
    EXIT_CONFIG,
    EXIT_OK,
    CommandError,
    in_plain_words,
    load_hub_settings,
    lock_sqlite,
)

if TYPE_CHECKING:
    from carrel_hub.db.engine import Database
    from carrel_hub.settings import HubSettings


def add_database_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `db` and what it can do to the command line."""
    database = commands.add_parser("db", help="look after the database")
    actions = database.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("upgrade", help="bring the database to this version's schema")
    actions.add_parser(
        "forget-fleet",
        help="have a new authority made for other machines, which all have to join anew",
    )
    backup = actions.add_parser(
        "backup", help="write all rows and keys to a file; hubs may be running"
    )
    backup.add_argument("file", type=Path, metavar="FILE", help="a file that is not there yet")
    restore = actions.add_parser("restore", help="make database and keys what a backup says")
    restore.add_argument("file", type=Path, metavar="FILE", help="what `db backup` wrote")
    restore.add_argument(
        "--replace", action="store_true", help="remove what is in the database now"
    )
    restore.add_argument(
        "--keep-sessions",
        action="store_true",
        help="leave people signed in, those too who have signed out since",
    )


def run_database_command(arguments: argparse.Namespace) -> int:
    """Run one of them and return its exit status."""
    settings = load_hub_settings(arguments.config)
    match arguments.action:
        case "upgrade":
            work = _upgrade(settings)
        case "forget-fleet":
            work = _forget_fleet(settings)
        case "backup":
            work = _backup(settings, arguments.file)
        case _:
            work = _restore(
                settings,
                arguments.file,
                replace=arguments.replace,
                keep_sessions=arguments.keep_sessions,
            )
    asyncio.run(in_plain_words(work))
    return EXIT_OK


@asynccontextmanager
async def _database(settings: "HubSettings") -> "AsyncIterator[Database]":
    from carrel_hub.db.engine import Database

    database = Database(settings.effective_database_url, hurried=False)
    try:
        yield database
    finally:
        await database.close()


async def _upgrade(settings: "HubSettings") -> None:
    from carrel_hub.db.expected import REVISIONS, schema_revision

    async with _database(settings) as database:
        found = await schema_revision(database)
        if found == REVISIONS[-1]:
            return  # a hub may be running on it
        if found is not None and found not in REVISIONS:
            raise CommandError(
                f"the database has schema {found}, which is newer than this Carrel knows;"
                " nothing was changed",
                status=EXIT_CONFIG,
            )
        with ExitStack() as stack:
            lock_sqlite(stack, settings)
            from carrel_hub.db.migrate import upgrade

            await upgrade(database)
        print(f"the database now has schema {REVISIONS[-1]}", file=sys.stderr)


async def _forget_fleet(settings: "HubSettings") -> None:
    from carrel_hub.db.expected import check_schema
    from carrel_hub.hosts.fleet import forget_authority
    from carrel_shared.clock import SystemClock

    async with _database(settings) as database:
        with ExitStack() as stack:
            lock_sqlite(stack, settings)
            await check_schema(database)
            there_was = await forget_authority(database, SystemClock())
    print(
        "the next hub that starts makes a new authority; every host has to join anew"
        if there_was
        else "there is no authority: no host has ever joined",
        file=sys.stderr,
    )


async def _backup(settings: "HubSettings", path: Path) -> None:
    from carrel_hub.backup.archive import BackupError
    from carrel_hub.backup.make import back_up
    from carrel_shared.clock import SystemClock

    async with _database(settings) as database:
        try:
            made = await back_up(database, settings.state_dir, path, SystemClock())
        except BackupError as error:
            raise CommandError(str(error)) from error
    print(
        f"{path}: {made.rows} rows of schema {made.revision} and {made.files} files. It holds keys:"
        " whoever has it can be anybody here.",
        file=sys.stderr,
    )


async def _restore(
    settings: "HubSettings", path: Path, *, replace: bool, keep_sessions: bool
) -> None:
    from carrel_hub.backup.archive import BackupError
    from carrel_hub.backup.restore import inspect_backup, restore
    from carrel_shared.clock import SystemClock

    try:
        contents = inspect_backup(path)
        async with _database(settings) as database:
            with ExitStack() as stack:
                lock_sqlite(stack, settings)
                await restore(
                    database,
                    settings.state_dir,
                    contents,
                    SystemClock(),
                    replace=replace,
                    keep_sessions=keep_sessions,
                )
    except BackupError as error:
        raise CommandError(str(error)) from error
    print(
        f"restored {contents.rows} rows and {len(contents.files)} files of {contents.made_at};"
        " start the hub now",
        file=sys.stderr,
    )
