"""The hub's own pages in a browser: what to start, tokens, sharing, hosts, signing out."""

import os
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from support.accounts import Account
from support.installation import Installation
from support.people import arrive_in_lab, sign_in_with_link, sign_in_with_password

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

Open = Callable[[], Page]
Shot = Callable[[Page, str], None]

TOML = """
[hub]
extra_user_scopes = ["shares!user"]
allow_named_servers = true

[hub.profiles.default]
title = "Notebooks"
description = "Small, and there in a moment."

[hub.profiles.course]
title = "Course on owls"

[hub.profiles.course.options.data]
title = "Data"
choices = { small = "A sample", all = "All of it" }

[hub.profiles.course.options.hours]
title = "Hours"
kind = "number"
maximum = 8
default = 2
"""
PHONE = 360


@pytest.fixture(scope="module")
def installation(alice: Account, request: pytest.FixtureRequest) -> Iterator[Installation]:
    """One where there is something to choose."""
    if os.geteuid() != 0:
        options = Installation(toml=TOML)
    else:
        bob = request.getfixturevalue("bob")
        toml = TOML + f'[hub.auth]\nallowed_users = ["{bob.name}"]\n'
        options = Installation(user=alice.name, toml=toml)
    with options as running:
        yield running


def watch_for_problems(page: Page) -> list[str]:
    """Collect what the browser refuses, and what breaks in the scripts of pages."""
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on(
        "console",
        lambda line: found.append(line.text) if "Content Security Policy" in line.text else None,
    )
    return found


def sign_in(page: Page, installation: Installation) -> None:
    """Sign the person at the console in; ends where that leads."""
    sign_in_with_link(page, installation.new_link())


def test_what_is_chosen_is_started_and_shared_until_it_is_taken_away(
    installation: Installation, alice: Account, bob: Account, new_person: Open, shot: Shot
) -> None:
    page = new_person()
    problems = watch_for_problems(page)
    sign_in(page, installation)
    page.wait_for_url("**/hub/spawn")
    hours = page.get_by_label("Hours")
    expect(hours).to_be_hidden()
    page.get_by_role("radio", name="Course on owls").check()
    page.get_by_label("Data").select_option("All of it")
    hours.fill("99")
    shot(page, "spawn-form")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_contain_text("8 is the most")
    expect(page.get_by_label("Data")).to_have_value("all")
    shot(page, "spawn-form-refused")
    hours.fill("3")
    page.get_by_role("button", name="Start").click()
    lab = arrive_in_lab(page, alice.name)
    lab.new_notebook()
    variables = "import os; print(*(os.environ['CARREL_OPTION_' + x] for x in ('DATA', 'HOURS')))"
    assert lab.run(variables) == "all 3"

    page.goto(f"{installation.url}hub/home")
    page.get_by_role("link", name="Share").click()
    page.get_by_role("button", name="Make a link").click()
    link = page.get_by_label("It is shown this once").input_value()
    shot(page, "share")
    guest = new_person()
    guest.goto(link)
    guest.locator("#username").fill(bob.name)
    guest.locator("#password").fill(bob.password)
    guest.locator("#sign-in").click()
    expect(guest.get_by_role("heading", level=1)).to_contain_text("shares a server with you")
    shot(guest, "share-offered")
    guest.get_by_role("button", name="Accept").click()
    guest.get_by_role("button", name="Open it").click()
    arrive_in_lab(guest, alice.name)
    api = f"{installation.url}user/{alice.name}/api/status"
    assert guest.request.get(api).status == 200

    page.reload()
    page.goto(f"{installation.url}hub/share/{alice.name}")
    page.get_by_role("button", name=f"Take away from {bob.name}").click()
    expect(page.locator("#shares")).to_have_count(0)
    assert guest.request.get(api).status == 403
    assert problems == []


def test_a_token_may_do_what_was_ticked(
    installation: Installation, new_person: Open, shot: Shot
) -> None:
    page = new_person()
    sign_in(page, installation)
    page.goto(f"{installation.url}hub/token")
    page.get_by_label("What for").fill("a script")
    page.get_by_label("Only some of it").check()
    page.get_by_label("list users").check()
    shot(page, "token-form")
    page.get_by_role("button", name="Make a token").click()
    token = page.locator("#new-token").inner_text()
    headers = {"Authorization": f"token {token}"}
    stranger = new_person().request
    users = stranger.get(f"{installation.url}hub/api/users", headers=headers)
    assert users.status == 200
    services = stranger.get(f"{installation.url}hub/api/services", headers=headers)
    assert services.status == 403
    page.get_by_role("button", name="Revoke a script").click()
    expect(page.locator("#tokens")).to_have_count(0)
    assert stranger.get(f"{installation.url}hub/api/users", headers=headers).status == 403


def test_pages_work_by_keyboard(
    installation: Installation, alice: Account, new_person: Open
) -> None:
    page = new_person()
    sign_in(page, installation)
    page.goto(f"{installation.url}hub/spawn/{alice.name}/by-keys")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("radio", name="Notebooks")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("radio", name="Course on owls")).to_be_checked()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Data")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.type("0")  # what it held is selected
    page.keyboard.press("Enter")
    page.wait_for_url("**/hub/spawn-pending/**")


def test_pages_work_without_scripts(
    browser: Browser, installation: Installation, alice: Account
) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        sign_in(page, installation)
        page.goto(f"{installation.url}hub/spawn/{alice.name}/plain")
        page.get_by_role("radio", name="Course on owls").check()
        page.get_by_label("Hours").fill("9")
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("alert")).to_contain_text("8 is the most")
        page.goto(f"{installation.url}hub/token")
        page.get_by_role("button", name="Make a token").click()
        expect(page.locator("#new-token")).to_be_visible()
        page.goto(f"{installation.url}hub/hosts")
        page.get_by_role("button", name="Drain").click()
        page.get_by_role("button", name="Take in").click()
        expect(page.get_by_role("button", name="Drain")).to_be_visible()
        page.get_by_role("link", name="local").click()
        page.get_by_role("link", name="Evacuate").click()
        expect(page.get_by_role("heading", name="Evacuate local?")).to_be_visible()
        expect(page.get_by_role("button", name="Evacuate")).to_be_enabled()
        page.get_by_role("link", name="Cancel").click()
        expect(page.get_by_role("heading", name="Host local")).to_be_visible()


def test_pages_fit_a_phone(
    installation: Installation, alice: Account, new_person: Open, shot: Shot
) -> None:
    page = new_person()
    sign_in(page, installation)
    page.set_viewport_size({"width": PHONE, "height": 700})
    for place in (
        "home",
        f"spawn/{alice.name}/phone",
        "token",
        f"share/{alice.name}",
        "hosts",
        "hosts/local?sure=evacuate",
        "admin",
        "audit",
    ):
        page.goto(f"{installation.url}hub/{place}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE, place
        shot(page, f"phone-{place.partition('/')[0]}")


def test_one_browser_signs_the_others_out(
    installation: Installation, bob: Account, new_person: Open
) -> None:
    first, second = new_person(), new_person()
    for page in (first, second):
        sign_in_with_password(page, installation.url, bob)
        page.wait_for_url("**/hub/spawn**")
    first.goto(f"{installation.url}hub/token")
    first.get_by_role("button", name="Sign out everywhere else").click()
    expect(first.locator("#browsers tbody tr")).to_have_count(1)
    second.goto(f"{installation.url}hub/home")
    expect(second.locator("#sign-in")).to_be_visible()
