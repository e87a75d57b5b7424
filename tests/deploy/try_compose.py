"""Use Carrel in containers as a person would: `make try-compose`. Not a test that pytest collects.

Needs a Docker daemon (DOCKER_HOST; scripts/docker-here starts one), Compose 2 and Debian's package
chromium. It builds the images, and works in a project of its own, `carrel-try`, which it removes
with its volumes. TRY_COMPOSE_FILES names further files for Compose, with colons between: how a
build reaches packages here, say.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect

from support.accounts import Account
from support.chromium import open_browser
from support.lab import Lab
from support.people import arrive_in_lab, sign_in_with_link, sign_in_with_password

SERVICES = ("hub", "proxy", "agent", "pam")
"""What `up --wait` can wait for: a container that is done, as `link` is soon, fails it."""

COMPOSE = Path(__file__).resolve().parents[2] / "deploy/compose.yaml"
DEMO = "carrel-demo"
BOB = Account("bob", "correct horse battery staple")
MORE = """
services:
  hub: &own {environment: {CARREL_HUB__AUTH__ALLOWED_USERS: '["bob"]'}}
  link: *own
"""


class Compose:
    """The project under trial."""

    def __init__(self, directory: Path) -> None:
        more = directory / "more.yaml"
        more.write_text(MORE, encoding="utf-8")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.publish = f"127.0.0.1:{free.getsockname()[1]}"
        files = [COMPOSE, more, *os.environ.get("TRY_COMPOSE_FILES", "").split(":")]
        options = [option for file in files if str(file) for option in ("-f", str(file))]
        self._command = ["docker", "compose", "-p", "carrel-try", *options]
        self._environment = os.environ | {"CARREL_PUBLISH": self.publish, "CARREL_USER": DEMO}
        self.url = f"http://{self.publish}/"

    def __call__(self, *arguments: str, said: str | None = None) -> str:
        """Run a command of Compose and return what it printed.

        Raises:
            SystemExit: It failed; with what it said.
        """
        began = time.monotonic()
        done = subprocess.run(
            [*self._command, *arguments],
            env=self._environment,
            input=said,
            capture_output=True,
            text=True,
            check=False,
        )
        print(f"  {time.monotonic() - began:6.1f} s  docker compose {' '.join(arguments)}")
        if done.returncode != 0:
            sys.exit(f"{done.stdout}\n{done.stderr}")
        return done.stdout

    def link(self) -> str:
        """Return another link."""
        return self._link_in(self("run", "--rm", "link"))

    @contextmanager
    def in_the_foreground(self) -> Iterator[str]:
        """Run `docker compose up` as a person does; give the link it prints. Ends with Ctrl-C."""
        process = subprocess.Popen(
            [*self._command, "up"], env=self._environment, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            yield self._link_in(next(line for line in process.stdout if "/hub/sign-in/" in line))
            print("  Ctrl-C")
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=90)

    def up(self, *options: str) -> None:
        self("up", "--detach", "--wait", *options, *SERVICES)

    def _link_in(self, text: str) -> str:
        return next(word for word in text.split() if word.startswith(self.url))

    def inspect(self) -> list[dict[str, Any]]:
        """Return all that Docker says of the project's containers and their images."""
        names = self("ps", "-aq").split() + [
            f"carrel-{name}:0.1.0" for name in ("hub", "proxy", "agent")
        ]
        done = subprocess.run(["docker", "inspect", *names], capture_output=True, check=True)
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, open_browser() as browser:
        compose = Compose(Path(directory))
        compose("build", "--quiet")
        try:
            with compose.in_the_foreground() as link:
                page = work_through_restarts(compose, browser, link)
                sign_in_by_password(compose, browser)
                look_for_secrets(compose, link)
            come_back_after_down(compose, page)
        except BaseException:
            print(compose("logs", "--tail=40"))
            raise
        finally:
            compose("down", "--volumes", "--timeout=20")
    print("Carrel in containers works.")


def work_through_restarts(compose: Compose, browser: Browser, link: str) -> Page:
    """A kernel keeps its variables while hub and proxy are restarted, and replaced."""
    page = browser.new_page()
    sign_in_with_link(page, link)
    lab = arrive_in_lab(page, DEMO)
    lab.new_notebook()
    check(lab.run("6*7"), "42")
    check(lab.run("import getpass; x = 5; print(getpass.getuser())"), DEMO)
    check(lab.run(POWERS), "0 0 1")
    for command in (
        ("restart", "hub"),
        ("restart", "proxy"),
        ("up", "--detach", "--force-recreate", "--no-deps", "hub", "proxy"),
    ):
        compose(*command)
        compose.up("--no-recreate")
        wait_until_connected(lab)
        check(lab.run("print(x + 1)"), "6")
    lab.save()
    lab.reload()
    check(lab.run("print(x + 2)"), "7")
    return page


def wait_until_connected(lab: Lab) -> None:
    """Return when the notebook's socket is open anew; the kernel's state is not known by then."""
    bar = lab.page.locator("#jp-main-statusbar")
    away = re.compile(r"\| (Connecting|Disconnected)")
    expect(bar).not_to_contain_text(away, timeout=90_000)


POWERS = """
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
print(int(status["CapEff"], 16), int(status["CapPrm"], 16), status["NoNewPrivs"].strip())
"""


def sign_in_by_password(compose: Compose, browser: Browser) -> None:
    """Somebody with an account in the agent's container works there as themselves."""
    compose("exec", "-T", "agent", "accounts", "add", BOB.name, said=f"{BOB.password}\n")
    page = browser.new_context().new_page()
    sign_in_with_password(page, compose.url, Account(BOB.name, "not the password"))
    expect(page.locator(".login_error")).to_be_visible(timeout=20_000)
    sign_in_with_password(page, compose.url, BOB)
    lab = arrive_in_lab(page, BOB.name)
    lab.new_notebook()
    others = f"import os; print(os.access('/home/{DEMO}', os.R_OK), os.listdir('/run/carrel'))"
    check(lab.run(others), "False ['agent', 'internal']")
    check(lab.run("print(os.access('/run/carrel/internal', os.X_OK))"), "False")


def look_for_secrets(compose: Compose, link: str) -> None:
    """Neither Docker nor a log knows a key or a link."""
    script = "cat /volumes/hub/keys.json"
    keys = json.loads(compose("run", "--rm", "--no-deps", "prepare", "sh", "-c", script))
    told = json.dumps(compose.inspect()) + compose("logs")
    check([name for name, key in keys.items() if key in told], [])
    check(link.rpartition("/")[2] in told, False)


def come_back_after_down(compose: Compose, page: Page) -> None:
    """Files, accounts and sign-ins outlive the containers; servers do not."""
    compose("down")
    compose.up()
    page.goto(f"{compose.url}hub/spawn")
    lab = arrive_in_lab(page, DEMO)
    check_notebook_is_there(lab)
    check("bob:" in compose("exec", "-T", "agent", "accounts", "list"), True)


def check_notebook_is_there(lab: Lab) -> None:
    listing = lab.page.locator(".jp-DirListing-content")
    expect(listing).to_contain_text("Untitled.ipynb", timeout=30_000)


def check(found: object, wanted: object) -> None:
    """Stop with both when they differ."""
    if found != wanted:
        raise AssertionError(f"found {found!r} instead of {wanted!r}")


if __name__ == "__main__":
    main()
