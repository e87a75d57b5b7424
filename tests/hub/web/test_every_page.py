"""What holds for all pages: closed to others, hostile names shown as text, errors as pages."""

import re
from html.parser import HTMLParser

import httpx
import pytest
from hub.web.site import Browser, Site, open_site

from carrel_hub.errors import UnavailableError
from carrel_hub.web import server_cards
from carrel_hub.web.render import HERE, STATIC

CANARY = "\"'><img src=x onerror=alert(1)>"
BASE = {
    "content-security-policy": (
        "frame-ancestors 'none'; report-uri /hub/security/csp-report; default-src 'none';"
        " style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self';"
        " form-action 'self'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Checker(HTMLParser):
    """Finds what a page must not hold, and labels without fields."""

    def __init__(self) -> None:
        super().__init__()
        self.problems: list[str] = []
        self.ids: set[str] = set()
        self.labels: list[str] = []
        self.headings = 0
        self.language = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        for name in values:
            if name.startswith("on") or name == "style":
                self.problems.append(f"inline {name} in <{tag}>")
        if tag == "script" and not values.get("src", "").startswith("/"):
            self.problems.append("inline script")
        if tag in ("style", "iframe", "object", "base"):
            self.problems.append(f"<{tag}>")
        if tag == "img" and values.get("src") == "x":
            self.problems.append("the canary sings")
        for name in ("href", "src", "action"):
            if name in values and not re.match(r"[/#](?!/)", values[name]):
                self.problems.append(f"{name}={values[name]!r}")
        if (element := values.get("id")) in self.ids:
            self.problems.append(f"id {element} twice")
        self.ids.add(values.get("id", ""))
        if tag == "label":
            self.labels.append(values["for"])
        self.headings += tag == "h1"
        if tag == "html":
            self.language = values.get("lang", "")


def check_page(reply: httpx.Response) -> None:
    """Assert what holds for every page."""
    where = f"{reply.request.method} {reply.request.url}: {reply.status_code}"
    for name, value in BASE.items():
        if (name, reply.headers.get(name)) != ("referrer-policy", "no-referrer"):
            assert reply.headers.get(name) == value, (where, name)
    if reply.is_redirect:
        return
    assert reply.headers["content-type"] == "text/html; charset=utf-8", where
    checker = Checker()
    checker.feed(reply.text)
    assert checker.problems == [], where
    assert set(checker.labels) <= checker.ids, where
    assert checker.headings == 1, where
    assert checker.language == "en"
    assert "<img src=x" not in reply.text, where
    assert "Traceback" not in reply.text, where


async def every_page(site: Site, browser: Browser, name: str) -> list[httpx.Response]:
    """Visit everything there is, in all states of a server."""
    from urllib.parse import quote

    escaped = quote(name, safe="@~")
    next_ = quote(f"/{name}", safe="")
    replies = []
    failure = {"summary": name, "code": 1, "log_tail": [name, "line two"], "cause": name}
    for state, values in (
        ("stopped", {"stop_reason": name}),
        ("queued", {"progress_message": name}),
        ("starting", {"progress_message": name, "progress": 40}),
        ("ready", {}),
        ("unknown", {"secret": "", "progress_message": name}),
        ("stopping", {}),
        ("failed", {"failure": failure}),
    ):
        await site.add_server(name, state, **values)
        for path in (
            "home",
            "",
            f"login?next={next_}&username={escaped}",
            f"spawn?next={next_}",
            f"spawn/{escaped}?next={next_}",
            f"spawn-pending/{escaped}?next={next_}",
            f"user/{escaped}/lab?{next_}",
            f"user-redirect/{escaped}?x={next_}",
            f"spawn/{escaped}x",
            f"spawn/{escaped}/named",
            f"sign-in/{escaped}",
            f"accept-share?code={escaped}&next={next_}",
            f"history/{escaped}",
            "token",
            f"share/{escaped}",
            f"share/{escaped}/named",
            "hosts",
            f"hosts/{escaped}",
            "admin",
            "audit",
            "audit?limit=1&actor=" + next_,
            f"nothing/{escaped}",
            f"api/oauth2/authorize?client_id={escaped}",
            f"api/oauth2/authorize?client_id=jupyterhub-user-{quote(quote(name, safe=''))}",
        ):
            replies.append(await browser.get(f"/hub/{path}", sec_fetch_site="cross-site"))
        await site.add_server(name, state, **values)
    return replies


async def test_every_page_is_closed_and_shows_hostile_names_as_text() -> None:
    """ADV-09, ADV-15."""
    async with open_site(
        auth={"allow_all": True, "allowed_users": [CANARY.replace("/", "")]}
    ) as site:
        await site.add_user(CANARY, admin=True)
        await site.add_user(CANARY + "2")
        await site.add_server(CANARY + "2", "failed", failure={"summary": CANARY})
        browser = site.browser()
        link = await browser.get(await site.new_link(CANARY))
        check_page(link)
        check_page(await browser.get(f"/hub/login?username={CANARY}&next=/{CANARY}"))
        page = await browser.get("/hub/login")
        check_page(await browser.press(page, "sign-in", username=CANARY, password="x"))
        check_page(await browser.press(link, "sign-in"))
        replies = await every_page(site, browser, CANARY)
        assert {reply.status_code for reply in replies} >= {200, 302, 303, 400, 404, 424, 500}
        for reply in replies:
            check_page(reply)
        consent = await browser.get(
            "/hub/api/oauth2/authorize",
        )
        check_page(consent)
        check_page(await browser.get("/hub/logout"))
        for reply in await every_page(site, site.browser(), CANARY):
            check_page(reply)


@pytest.mark.parametrize(
    "path",
    [
        "/hub/home",
        "/hub/audit",
        "/hub/token",
        "/hub/share/alice",
        "/hub/hosts",
        "/hub/admin",
        "/hub/login",
        "/hub/spawn",
        "/hub/spawn-pending/alice",
        "/hub/",
        "/hub/logout",
    ],
)
async def test_scripts_are_given_no_page(site: Site, path: str) -> None:
    """A neighbour's page is of the same origin, so it could read the tokens in ours."""
    browser = await site.signed_in("alice")
    for mode in ("cors", "same-origin", "no-cors"):
        reply = await browser.get(path, sec_fetch_mode=mode, sec_fetch_site="same-origin")
        assert reply.status_code == 403
        assert "_xsrf" not in reply.text
        assert "set-cookie" not in reply.headers
    assert len(await site.sessions()) == 1, "nor is anybody signed out by one"


async def test_what_breaks_becomes_a_page_without_its_cause(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = await site.signed_in("alice")

    def fail(*_args: object, **_values: object) -> None:
        raise UnavailableError("The database is away. Try again.")

    monkeypatch.setattr(server_cards, "view", fail)
    reply = await browser.get("/hub/home")
    assert reply.status_code == 503
    assert "The database is away" in reply.text
    check_page(reply)


async def test_static_files_are_kept_for_ever_under_their_hash(site: Site) -> None:
    """ADV-16 too: nothing beside them is reached."""
    browser = site.browser()
    page = await browser.get("/hub/login")
    found = set(re.findall(r'(?:href|src)="(/hub/static/[^"]+)"', page.text))
    assert {path.partition("?")[0].rsplit(".", 1)[1] for path in found} == {"css", "js", "svg"}
    for path in found:
        reply = await browser.get(path, sec_fetch_mode="no-cors")
        assert reply.status_code == 200
        assert "immutable" in reply.headers["cache-control"]
        assert reply.headers["x-content-type-options"] == "nosniff"
        bare = await browser.get(path.partition("?")[0], sec_fetch_mode="no-cors")
        assert bare.headers["cache-control"] == "no-cache"
    script = await browser.get("/hub/static/forms.js", sec_fetch_mode="no-cors")
    assert script.headers["content-type"].startswith("text/javascript")
    for wrong in (
        "/hub/static/nothing.css",
        "/hub/static/..%2fpages.py",
        "/hub/static/../pages.py",
    ):
        assert (await browser.get(wrong)).status_code == 404


def test_no_template_switches_escaping_off() -> None:
    """ADV-09."""
    for path in (HERE / "templates").iterdir():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe|autoescape|Markup|\son\w+=|style=", text), path.name


def test_styles_and_scripts_fetch_nothing_from_elsewhere() -> None:
    for path in STATIC.iterdir():
        text = path.read_text(encoding="utf-8")
        assert "://" not in text.replace("http://www.w3.org/2000/svg", ""), path.name
        assert "eval(" not in text
        assert "innerHTML" not in text


async def test_a_report_of_the_browser_is_taken_from_people_only(site: Site) -> None:
    report = {"csp-report": {"blocked-uri": "inline", "violated-directive": "script-src"}}
    assert (await site.client().post("/hub/security/csp-report", json=report)).status_code == 403
    browser = await site.signed_in("alice")
    for body, status in ((report, 200), ({}, 200), ([], 200), ({"csp-report": 1}, 200)):
        reply = await browser.client.post("/hub/security/csp-report", json=body)
        assert reply.status_code == status


async def test_a_proxy_gets_the_body_of_an_error_with_200(site: Site) -> None:
    for code, words in (("503", "does not answer right now"), ("404", "leads nowhere")):
        reply = await site.client().get(f"/hub/error/{code}")
        assert (reply.status_code, words in reply.text) == (200, True)
        assert f"Status {code}" in reply.text
        check_page(reply)
    for wrong in ("x", "5033", "٥٠٣"):
        assert (await site.client().get(f"/hub/error/{wrong}")).status_code == 404
