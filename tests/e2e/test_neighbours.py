"""Two people on one domain cannot get at each other's work."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from support.accounts import Account
from support.installation import Installation
from support.people import arrive_in_lab, sign_in_with_link, sign_in_with_password

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

Open = Callable[[], Page]
Shot = Callable[[Page, str], None]

ATTACK = """async ([url, method]) => {
    const reply = await fetch(url, {method, body: method === 'DELETE' ? undefined :
        JSON.stringify({type: 'file', format: 'text', content: 'mine now'}),
        headers: {'Content-Type': 'application/json'}, referrer: url});
    return reply.status;
}"""


@pytest.fixture
def bobs_page(installation: Installation, bob: Account, new_person: Open) -> Page:
    page = new_person()
    sign_in_with_password(page, installation.url, bob)
    arrive_in_lab(page, bob.name)
    return page


def test_another_user_is_refused(
    installation: Installation, alice: Account, bobs_page: Page, new_person: Open, shot: Shot
) -> None:
    alices_page = new_person()
    sign_in_with_link(alices_page, installation.new_link())
    arrive_in_lab(alices_page, alice.name)

    reply = bobs_page.goto(f"{installation.url}user/{alice.name}/lab")
    assert reply is not None
    assert reply.status == 403
    shot(bobs_page, "forbidden")
    kernels = f"{installation.url}user/{alice.name}/api/kernels"
    assert bobs_page.request.get(kernels).status == 403
    assert bobs_page.request.post(kernels, data={}).status == 403


def test_a_page_of_the_neighbours_server_cannot_write_to_mine(
    installation: Installation, alice: Account, bob: Account, bobs_page: Page, new_person: Open
) -> None:
    """Alice, an administrator, looks at a page that bob's server serves, in her own browser."""
    page = new_person()
    sign_in_with_link(page, installation.new_link())
    arrive_in_lab(page, alice.name)
    page.goto(f"{installation.url}user/{bob.name}/lab")
    if page.locator("#allow").count():
        page.locator("#allow").click()
    page.wait_for_url(f"**/user/{bob.name}/lab**", timeout=30_000)

    mine = f"/user/{alice.name}/api"
    for url, method in (
        (f"{mine}/contents/stolen.txt", "PUT"),
        (f"{mine}/contents", "POST"),
        (f"{mine}/kernels", "POST"),
        (f"{mine}/contents/stolen.txt", "DELETE"),
    ):
        assert page.evaluate(ATTACK, [url, method]) == 403, (method, url)
