"""What a request needs of the hub."""

from typing import Annotated, cast

from fastapi import Depends, Request

from carrel_hub.context import Hub


async def get_hub(request: Request) -> Hub:
    """Return the hub that serves this request."""
    return cast(Hub, request.app.state.hub)


HubDep = Annotated[Hub, Depends(get_hub)]
