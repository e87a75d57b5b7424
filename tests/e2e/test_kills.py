"""A service is killed while a kernel computes: what the kernel holds is still there afterwards."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from support.accounts import Account
from support.installation import Installation
from support.people import arrive_in_lab, sign_in_with_link

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

Open = Callable[[], Page]


def test_work_survives_the_death_of_each_service(
    installation: Installation, alice: Account, new_person: Open
) -> None:
    page = new_person()
    sign_in_with_link(page, installation.new_link())
    lab = arrive_in_lab(page, alice.name)
    lab.new_notebook()
    lab.run("seen = []")
    lab.save()
    for round_number, service in enumerate(("hub", "proxy", "agent"), start=1):
        lab.start(f"import time; time.sleep(2); seen.append({service!r})")
        installation.kill(service)
        installation.wait_until_healthy()
        lab.wait_until_idle()
        assert lab.run("print(len(seen))") == str(round_number), service
    assert lab.run("print(seen)") == "['hub', 'proxy', 'agent']"

    page.goto(f"{installation.url}hub/home")
    expect(page.locator("#open")).to_be_visible()
    page.locator("#stop").click()
    expect(page.locator("#start")).to_be_visible(timeout=60_000)
