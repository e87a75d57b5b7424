"""A whole installation, real accounts, and a real browser."""

import getpass
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from support.accounts import Account, temporary_account
from support.chromium import PATIENCE_MS, open_browser
from support.installation import Installation
from support.outcome import FAILED

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "test-output" / "screenshots"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for one module: while it is open no asynchronous test of another can run."""
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def alice() -> Iterator[Account]:
    """The person at the console, an administrator: whoever runs the tests, unless that is root."""
    if os.geteuid() != 0:
        yield Account(getpass.getuser(), "")
        return
    with temporary_account("alice") as account:
        yield account


@pytest.fixture(scope="module")
def bob() -> Iterator[Account]:
    """An ordinary user who signs in with a password."""
    if os.geteuid() != 0:
        pytest.skip("making unix accounts needs root")
    with temporary_account("bob") as account:
        yield account


@pytest.fixture(scope="module")
def installation(alice: Account, request: pytest.FixtureRequest) -> Iterator[Installation]:
    if os.geteuid() != 0:
        options = Installation()
    else:
        bob = request.getfixturevalue("bob")
        toml = f'[hub.auth]\nallowed_users = ["{bob.name}"]\n'
        options = Installation(user=alice.name, toml=toml)
    with options as running:
        yield running


@pytest.fixture
def new_person(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Callable[[], Page]]:
    """Open a browser of somebody who has never been here: own cookies, own tab.

    What each tab shows is kept when the test fails.
    """
    contexts: list[BrowserContext] = []

    def open_browser() -> Page:
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        return context.new_page()

    yield open_browser
    for number, context in enumerate(contexts, start=1):
        if request.node.stash.get(FAILED, False):
            SHOTS.mkdir(parents=True, exist_ok=True)
            for page in context.pages:
                page.screenshot(path=SHOTS / f"failed-{request.node.name}-{number}.png")
        context.close()


@pytest.fixture
def shot() -> Callable[[Page, str], None]:
    """Keep a picture of a page as test output."""
    SHOTS.mkdir(parents=True, exist_ok=True)

    def take(page: Page, name: str) -> None:
        page.screenshot(path=SHOTS / f"{name}.png", full_page=True)

    return take
