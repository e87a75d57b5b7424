"""A newcomer's first day: sign in, run a cell, come back, stop, sign out."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from support.accounts import Account
from support.installation import Installation
from support.people import (
    arrive_in_lab,
    sign_in_with_link,
    sign_in_with_password,
    stop_server,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

Open = Callable[[], Page]
Shot = Callable[[Page, str], None]


def test_the_console_link_leads_to_a_notebook_that_computes(
    installation: Installation, alice: Account, new_person: Open, shot: Shot
) -> None:
    page = new_person()
    page.goto(installation.link)
    shot(page, "sign-in-link")
    page.get_by_role("button").click()
    lab = arrive_in_lab(page, alice.name)
    lab.new_notebook()
    assert lab.run("6*7") == "42"
    assert lab.run("import getpass; x = 5; print(getpass.getuser())") == alice.name
    lab.save()
    shot(page, "lab")
    lab.reload()
    assert lab.run("print(x + 1)") == "6"

    page.goto(f"{installation.url}hub/home")
    expect(page.locator("#open")).to_be_visible()
    shot(page, "home-running")
    stop_server(page, installation.url)
    shot(page, "home-stopped")

    page.goto(f"{installation.url}user/{alice.name}/lab")
    expect(page.locator("#start")).to_be_visible()
    shot(page, "not-running")


def test_a_link_works_once(installation: Installation, new_person: Open, shot: Shot) -> None:
    link = installation.new_link()
    sign_in_with_link(new_person(), link)
    second = new_person()
    second.goto(link)
    if second.get_by_role("button").count():
        second.get_by_role("button").click()
    expect(second.locator("body")).to_contain_text("carrel link")
    shot(second, "link-used")
    second.goto(f"{installation.url}hub/home")
    expect(second.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_password_signs_in_and_signing_out_closes_every_door(
    installation: Installation, bob: Account, new_person: Open, shot: Shot
) -> None:
    page = new_person()
    page.goto(installation.url)
    shot(page, "sign-in")
    wrong = Account(bob.name, "not the password")
    sign_in_with_password(page, installation.url, wrong)
    expect(page.locator(".login_error")).to_be_visible()
    shot(page, "sign-in-refused")
    sign_in_with_password(page, installation.url, bob)
    arrive_in_lab(page, bob.name)
    api = f"{installation.url}user/{bob.name}/api/kernels"
    assert page.request.get(api).status == 200

    page.goto(f"{installation.url}hub/logout")
    shot(page, "signed-out")
    assert page.request.get(api).status == 403
    page.goto(f"{installation.url}user/{bob.name}/lab")
    expect(page.locator("#sign-in")).to_be_visible()


def test_a_start_shows_its_progress(
    installation: Installation, bob: Account, new_person: Open, shot: Shot
) -> None:
    page = new_person()
    sign_in_with_password(page, installation.url, bob)
    arrive_in_lab(page, bob.name)
    stop_server(page, installation.url)
    with page.expect_request("**/server/progress*", timeout=60_000):
        page.locator("#start").click()
    arrive_in_lab(page, bob.name)
    stop_server(page, installation.url)


def test_a_start_that_fails_says_why_and_can_be_tried_again(
    installation: Installation, bob: Account, new_person: Open, shot: Shot
) -> None:
    """Their own Jupyter settings take long and then break: a mistake people make."""
    home = Path(f"~{bob.name}").expanduser()
    mistake = home / ".jupyter" / "jupyter_server_config.py"
    mistake.parent.mkdir(exist_ok=True)
    mistake.write_text("import time; time.sleep(4)\nraise SystemExit('no shrubbery')\n")
    page = new_person()
    sign_in_with_password(page, installation.url, bob)
    expect(page.locator("#progress")).to_be_visible(timeout=60_000)
    shot(page, "pending")
    expect(page.locator("#cause")).to_be_visible(timeout=60_000)
    expect(page.locator("#log")).to_contain_text("no shrubbery")
    shot(page, "failed")
    mistake.unlink()
    page.locator("#start").click()
    arrive_in_lab(page, bob.name)
    stop_server(page, installation.url)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has no account of its own")
def test_root_alone_administers_and_runs_no_notebook(new_person: Open, shot: Shot) -> None:
    with Installation() as lonely:
        assert lonely.user == "admin"
        page = new_person()
        sign_in_with_link(page, lonely.link)
        page.wait_for_url("**/hub/home")
        expect(page.locator("body")).to_contain_text("no unix account")
        expect(page.locator("#start")).to_have_count(0)
        shot(page, "home-administrator")


def test_the_hub_is_one_menu_away(
    installation: Installation, bob: Account, new_person: Open, shot: Shot
) -> None:
    page = new_person()
    sign_in_with_password(page, installation.url, bob)
    arrive_in_lab(page, bob.name)
    page.get_by_role("menuitem", name="File", exact=True).click()
    shot(page, "lab-hub-menu")
    with page.context.expect_page() as opened:
        page.get_by_text("Hub Control Panel").click()
    expect(opened.value.locator("#stop")).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("menuitem", name="File", exact=True).click()
    page.get_by_role("menuitem", name="Log Out", exact=True).click()
    expect(page.locator("#sign-in")).to_be_visible(timeout=60_000)
