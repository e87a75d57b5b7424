"""What browsers report: something on one of our pages broke the page's own rules."""

import json

import structlog
from starlette.requests import Request
from starlette.responses import Response

from carrel_hub.auth.browser import hub_of
from carrel_hub.auth.links import PATH as LINK_PATH
from carrel_hub.auth.subjects import page_subject
from carrel_hub.errors import ForbiddenError
from carrel_hub.late_routes import LateRouter
from carrel_hub.rbac.decisions import NO_CREDENTIALS
from carrel_hub.web.page_route import PageRoute

router = LateRouter(route_class=PageRoute)
log = structlog.get_logger(__name__)

MAX_REPORT = 16 * 1024
_FIELDS = ("violated-directive", "blocked-uri", "source-file", "line-number")
"""Not the page's own address, which can be a secret."""


@router.post("/security/csp-report")
async def csp_report(request: Request) -> Response:
    """Log a report, without what could be secret in its addresses."""
    subject = await page_subject(request)
    if subject.is_anonymous:
        raise ForbiddenError(NO_CREDENTIALS)
    body = await request.body()
    try:
        report = json.loads(body[:MAX_REPORT])["csp-report"]
        found = {name.replace("-", "_"): _short(report.get(name)) for name in _FIELDS}
    except (ValueError, KeyError, TypeError, AttributeError):
        found = {}
    log.warning("page_rule_broken", user=subject.name, **found)
    hub_of(request).measures.rule_broken()
    return Response(status_code=200)


def _short(value: object) -> str:
    text = str(value or "").partition("?")[0]
    return "[a sign-in link]" if LINK_PATH in text else text[:200]
