"""Two people on one domain cannot get at each other's work."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

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
    page.wait_for_url(f"**/user/{bob.name}/lab**", timeout=60_000)

    mine = f"/user/{alice.name}/api"
    for url, method in (
        (f"{mine}/contents/stolen.txt", "PUT"),
        (f"{mine}/contents", "POST"),
        (f"{mine}/kernels", "POST"),
        (f"{mine}/contents/stolen.txt", "DELETE"),
    ):
        assert page.evaluate(ATTACK, [url, method]) == 403, (method, url)


def visit(page: Page, installation: Installation, alice: Account, bob: Account) -> None:
    """Have alice, an administrator, signed in to her own server and looking at bob's."""
    sign_in_with_link(page, installation.new_link())
    arrive_in_lab(page, alice.name)
    page.goto(f"{installation.url}user/{bob.name}/lab")
    if page.locator("#allow").count():
        page.locator("#allow").click()
    arrive_in_lab(page, bob.name)


WHO = """(url) => fetch(url).then((reply) => reply.json()).then((me) => me.identity)"""


def test_a_visitor_is_shown_as_themselves(
    installation: Installation,
    alice: Account,
    bob: Account,
    bobs_page: Page,
    new_person: Open,
    shot: Shot,
) -> None:
    page = new_person()
    visit(page, installation, alice, bob)
    for name in (alice.name, bob.name):
        me = page.evaluate(WHO, f"/user/{name}/api/me")
        assert (me["username"], me["display_name"]) == (alice.name, alice.name)
    assert bobs_page.evaluate(WHO, f"/user/{bob.name}/api/me")["username"] == bob.name
    shot(page, "visitor")


REGISTER = """async ([script, scope]) => {
    try {
        await navigator.serviceWorker.register(script, {scope});
        return 'registered';
    } catch (error) {
        return error.name;
    }
}"""


def test_a_neighbours_service_worker_stays_at_home(
    installation: Installation, alice: Account, bob: Account, bobs_page: Page, new_person: Open
) -> None:
    page = new_person()
    visit(page, installation, alice, bob)
    script = page.locator("script[src*='/static/lab/']").first.get_attribute("src")
    for scope in ("/", "/hub/", f"/user/{alice.name}/", f"/user/{bob.name}/../{alice.name}/"):
        assert page.evaluate(REGISTER, [script, scope]) == "SecurityError", scope


def test_a_cookie_that_a_neighbour_tosses_counts_for_nobody(
    installation: Installation, alice: Account, bob: Account, bobs_page: Page, new_person: Open
) -> None:
    """Bob's page puts its own token where alice's is: two of one name are none. Alice is told."""
    page = new_person()
    visit(page, installation, alice, bob)
    cookies = page.context.cookies()
    mine = next(
        cookie["name"]
        for cookie in cookies
        if cookie["name"].startswith("carrel-session-") and alice.name in cookie["path"]
    )
    page.evaluate(
        "(text) => { document.cookie = text; }", f"{mine}=tossed; Path=/user/{alice.name}/lab"
    )
    status = "(url) => fetch(url).then((reply) => reply.status)"
    assert page.evaluate(status, f"/user/{alice.name}/lab/api/x") == 403
    assert page.evaluate(status, f"/user/{alice.name}/api/kernels") == 200
    page.goto(f"{installation.url}user/{alice.name}/lab")
    expect(page.locator("body")).to_contain_text("Remove this site")
    page.context.clear_cookies(path=f"/user/{alice.name}/lab")


ODD = (
    "/user%2f{bob}/api/me",
    "/user/{alice}/..%2f{bob}/api/me",
    "/user/{alice}/%2e%2e%2f{bob}/api/me",
    "/user/{alice}%2f..%2f{bob}/api/me",
    "/user/{alice}/..;/{bob}/api/me",
    "/user/{alice}/..%5c{bob}/api/me",
    "/user/{alice}/%252e%252e/{bob}/api/me",
    "/user/{alice}//../{bob}%2fapi/me",
    "/user/{bob}%00/api/me",
)


def test_odd_links_lead_from_nobodys_server_to_anothers(
    installation: Installation, alice: Account, bob: Account, bobs_page: Page, new_person: Open
) -> None:
    """R21: the browser sends the cookies of the path that it sees; the server must be of that."""
    page = new_person()
    visit(page, installation, alice, bob)
    fetch = """(url) => fetch(url).then(async (reply) => [reply.status, reply.url])"""
    for link in ODD:
        path = link.format(alice=alice.name, bob=bob.name)
        status, where = page.evaluate(fetch, path)
        assert status in (400, 403, 404, 424), (path, status, where)


def test_going_back_after_signing_out_shows_nothing_that_works(
    installation: Installation, bobs_page: Page, bob: Account
) -> None:
    api = f"/user/{bob.name}/api/kernels"
    status = f"() => fetch('{api}').then((reply) => reply.status)"
    assert bobs_page.evaluate(status) == 200
    bobs_page.goto(f"{installation.url}hub/logout")
    expect(bobs_page.locator("#sign-in")).to_be_visible()
    bobs_page.go_back()
    assert bobs_page.evaluate(status) == 403
