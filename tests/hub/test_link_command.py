"""`carrel-hub link`: a sign-in link where no `carrel up` prints one."""

import re

from hub.processes import installation

from carrel_shared.addresses import UnixAddress, http_client

ADDRESS = "http://127.0.0.1:8000"


async def test_a_link_is_printed_with_whom_it_signs_in() -> None:
    async with installation() as made:
        arguments = ("--config", str(made.config), "link", "alice", "--at", f"{ADDRESS}/")
        status, said, error = await made.run(*arguments)
        assert (status, error) == (0, "")
        assert "as alice (administrator)" in said
        path = re.search(rf"{ADDRESS}(/hub/sign-in/\S{{40,}})\n", said)
        assert path is not None
        await made.start_hub()
        async with http_client(UnixAddress(f"{made.directory}/hub.sock")) as client:
            headers = {"X-Forwarded-For": "127.0.0.1", "Sec-Fetch-Mode": "navigate"}
            page = await client.get(path[1], headers=headers)
        assert page.status_code == 200
        assert "alice" in page.text


async def test_public_url_counts_more_than_at() -> None:
    async with installation() as made:
        status, said, _ = await made.run(
            *("--config", str(made.config), "link", "alice", "--at", ADDRESS),
            CARREL_HUB__PUBLIC_URL="https://hub.example.org/",
        )
        assert status == 0
        assert "https://hub.example.org/hub/sign-in/" in said
        assert ADDRESS not in said


async def test_without_an_address_it_says_what_is_missing() -> None:
    async with installation() as made:
        status, said, error = await made.run("--config", str(made.config), "link", "alice")
        assert (status, said) == (2, "")
        assert "hub.public_url" in error
        assert "--at" in error


async def test_what_can_be_nobodys_name_is_refused() -> None:
    async with installation() as made:
        arguments = ("--config", str(made.config), "link", "a/b", "--at", ADDRESS)
        status, _, error = await made.run(*arguments)
        assert status == 1
        assert "'a/b' cannot be a user's name" in error
        assert "Traceback" not in error
