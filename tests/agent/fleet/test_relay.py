"""What an agent tells its relay, and when the hub hears that a server is ready."""

import httpx
from fastapi import FastAPI, Request, Response

from carrel_agent.fleet.relay import WAITING, RelayRoutes
from carrel_shared.wire.routes import RouteTable, TableStatus
from carrel_shared.wire.servers import ServerReport, ServerState

ONE, TWO = "0123456789ab", "ba9876543210"
PREFIXES = {ONE: "/user/alice/", TWO: "/user/bob/"}


class FakeRelay:
    def __init__(self) -> None:
        self.tables: list[RouteTable] = []
        self.down = False
        app = FastAPI()
        app.put("/control/v1/table")(self._table)
        app.get("/control/v1/status")(self._status)
        self._transport = httpx.ASGITransport(app=app)

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=self._transport, base_url="http://relay")

    async def _table(self, request: Request) -> Response:
        if self.down:
            return Response(status_code=503)
        self.tables.append(RouteTable.read(await request.body()))
        return await self._status()

    async def _status(self) -> Response:
        if self.down:
            return Response(status_code=503)
        last = self.tables[-1] if self.tables else RouteTable(epoch="", number=0, routes=[])
        status = TableStatus(epoch=last.epoch, number=last.number, routes=len(last.routes))
        return Response(status.model_dump_json(), media_type="application/json")


def report(server_id: str, state: ServerState = ServerState.READY) -> ServerReport:
    return ServerReport(
        server_id=server_id,
        generation=1,
        state=state,
        runner="exec",
        target=f"unix:/run/s/{server_id}/http.sock",
        peer_uid=1001,
    )


async def test_a_server_is_ready_once_the_relay_leads_to_it() -> None:
    relay = FakeRelay()
    async with relay.client() as client:
        routes = RelayRoutes(client, "k" * 32)
        relay.down = True
        [held] = await routes.follow([report(ONE)], PREFIXES)
        assert (held.state, held.progress) == (ServerState.STARTING, WAITING)
        relay.down = False
        [told] = await routes.follow([report(ONE)], PREFIXES)
        assert told.state == ServerState.READY
        [route] = relay.tables[-1].routes
        assert (route.prefix, route.peer_uid, route.access) == ("/user/alice/", 1001, None)
        relay.down = True
        both = await routes.follow([report(ONE), report(TWO)], PREFIXES)
        assert [one.state for one in both] == [ServerState.READY, ServerState.STARTING]


async def test_nothing_is_told_twice_and_a_relay_that_lost_it_is_told_again() -> None:
    relay = FakeRelay()
    async with relay.client() as client:
        routes = RelayRoutes(client, "k" * 32)
        for _ in range(3):
            await routes.follow([report(ONE)], PREFIXES)
        assert len(relay.tables) == 1
        relay.tables.clear()
        await routes.follow([report(ONE)], PREFIXES)
        assert [len(table.routes) for table in relay.tables] == [1]
        await routes.follow([report(ONE, ServerState.STOPPED)], {})
        assert relay.tables[-1].routes == []
