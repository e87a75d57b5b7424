"""What scripts of earlier JupyterHubs ask for."""

from hub.users.conftest import NewPerson
from hub.world import World
from sqlmodel import delete
from starlette.responses import Response

from carrel_hub.auth.cookies import CookieJar
from carrel_hub.auth.sessions import begin_session, remember
from carrel_hub.auth.signing import signer_for
from carrel_hub.db.models import BrowserSession

COOKIE = "/authorizations/cookie/jupyterhub-hub-login"


async def sign_in(live: World, name: str) -> str:
    """Return the login cookie of somebody who has just signed in."""
    hub = live.hub
    signer, user = signer_for(hub.settings.state_dir), await live.user(name)
    async with hub.database.write() as session:
        new = await begin_session(session, hub, signer, user, how="password")
    response = Response()
    jar = CookieJar("/", "/hub/", secure=False)
    remember(response, jar, signer, new, now=hub.clock.now())
    [cookie] = [
        value.partition("=")[2].partition(";")[0].strip('"')
        for value in response.headers.getlist("set-cookie")
        if value.startswith("jupyterhub-hub-login=")
    ]
    return cookie


async def test_whose_cookie_it_is_can_still_be_asked(new_person: NewPerson, live: World) -> None:
    root, nobody = await new_person("root-of-hub", admin=True), await new_person(None)
    await new_person("bob")
    cookie = await sign_in(live, "bob")
    for found in (
        await root.get(f"{COOKIE}/{cookie}"),
        await root.request("GET", COOKIE, content=cookie),
    ):
        assert found.status_code == 200
        assert found.json()["name"] == "bob"
        assert "servers" not in found.json()
    assert (await nobody.get(f"{COOKIE}/{cookie}")).status_code == 403
    for path in (COOKIE, f"{COOKIE}/x{cookie}", f"/authorizations/cookie/_xsrf/{cookie}"):
        assert (await root.get(path)).status_code == 404, path
    async with live.hub.database.write() as session:
        await session.exec(delete(BrowserSession))
    assert (await root.get(f"{COOKIE}/{cookie}")).status_code == 404


async def test_administrators_access_is_scopes_and_nothing_to_ask_for(
    new_person: NewPerson,
) -> None:
    root, bob = await new_person("root-of-hub", admin=True), await new_person("bob")
    assert (await root.post("/users/bob/admin-access")).status_code == 403
    assert (await bob.post("/users/root-of-hub/admin-access")).status_code == 404
