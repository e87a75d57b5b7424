"""`{hub}api/openapi.json`: the API described, for whoever may call it at all."""

from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import JSONResponse

from carrel_hub.auth.subjects import Subject, require_somebody
from carrel_hub.late_routes import LateRouter
from carrel_hub.openapi.document import describe_api

router = LateRouter()


@router.get("/openapi.json")
async def describe(
    request: Request, _subject: Annotated[Subject, Depends(require_somebody)]
) -> JSONResponse:
    """The description of this API."""
    state = request.app.state
    document: dict[str, Any] | None = getattr(state, "openapi_document", None)
    if document is None:
        document = state.openapi_document = describe_api(request.app.routes)
    return JSONResponse(document)
