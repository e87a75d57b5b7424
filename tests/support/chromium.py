"""A headless Chromium, as Debian packages it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

PATIENCE_MS = 60_000
"""How long anything on a page may take; the machine is busy."""

_OPTIONS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Open a browser; while it is open no asynchronous test of another module can run."""
    found = map(shutil.which, ("chromium-headless-shell", "chromium"))  # the first has no windows
    executable = next(filter(None, found), None)
    if executable is None:
        pytest.skip("needs Debian's package chromium-headless-shell, or chromium")
    options = [*_OPTIONS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE_MS)
        browser = playwright.chromium.launch(executable_path=executable, args=options)
        yield browser
        browser.close()
