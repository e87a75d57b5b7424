"""`{hub}api/events` and `/users/NAME/server/events`: the history, for those it is for.

JupyterHub has nothing like it.
"""

from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import JSONResponse

from carrel_hub.auth.subjects import Subject, current_subject
from carrel_hub.context import Hub
from carrel_hub.deps import HubDep
from carrel_hub.errors import NotFoundError
from carrel_hub.events.access import require_audit
from carrel_hub.events.reading import Wanted, event_model, find_events, read_wanted
from carrel_hub.late_routes import LateRouter
from carrel_hub.rbac import Resource, Scope, authorise
from carrel_hub.spawns.service import find_server
from carrel_hub.users.accounts import find_user

router = LateRouter()

SubjectDep = Annotated[Subject, Depends(current_subject)]


@router.get("/events")
async def get_events(request: Request, hub: HubDep, subject: SubjectDep) -> JSONResponse:
    """Everything that happened: who did what to whom. For administrators."""
    require_audit(subject)
    return await _reply(request, hub, read_wanted(request.query_params))


@router.get("/users/{name}/server/events")
@router.get("/users/{name}/servers/{server_name}/events")
async def get_server_events(
    name: str, request: Request, hub: HubDep, subject: SubjectDep, server_name: str = ""
) -> JSONResponse:
    """The history of one server, that of its earlier starts included."""
    authorise(subject, Scope.READ_SERVERS, Resource(name, server_name))
    async with hub.database.read() as session:
        user = await find_user(session, name)
        row = await find_server(session, user, server_name) if user is not None else None
    if user is None or (row is None and server_name):
        raise NotFoundError("")
    server_id = row.id if row is not None else ""
    return await _reply(request, hub, read_wanted(request.query_params, server_id=server_id))


async def _reply(request: Request, hub: Hub, wanted: Wanted) -> JSONResponse:
    async with hub.database.read() as session:
        events, before = await find_events(session, wanted)
    body: dict[str, Any] = {"events": [event_model(event) for event in events], "next": None}
    if before is not None:
        body["next"] = str(request.url.include_query_params(before=before))
    return JSONResponse(body)
