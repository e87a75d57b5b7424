"""The one page the proxy draws: self-contained, without script, in light and dark."""

import base64
import hashlib
import html
from http import HTTPStatus

_STYLE = """
:root{color-scheme:light dark;--ground:#f6f5f2;--card:#fff;--ink:#22201c;--soft:#6b665d;
--line:#e4e0d8;--mark:#8a5a2b}
@media(prefers-color-scheme:dark){:root{--ground:#181715;--card:#22201d;--ink:#ece8e1;
--soft:#a49d91;--line:#38342f;--mark:#d9a066}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;display:grid;place-items:center;background:var(--ground);
color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main{max-width:34rem;margin:1.5rem;padding:2.25rem 2.5rem;background:var(--card);
border:1px solid var(--line);border-radius:12px}
p{margin:.6rem 0 0;color:var(--soft)}
h1{margin:0;font-size:1.35rem;line-height:1.3}
.mark{margin-top:1.4rem;font-size:.8rem}
.status{margin:0 0 .35rem;color:var(--mark);font-size:.85rem;letter-spacing:.06em}
a{display:inline-block;margin-top:1.4rem;padding:.55rem 1.1rem;border-radius:8px;
background:var(--mark);color:var(--card);text-decoration:none;font-weight:600}
a:focus-visible{outline:3px solid var(--ink);outline-offset:2px}
"""

_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode("ascii")

PAGE_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
).encode("ascii")
"""The page's Content-Security-Policy: its own style and nothing else."""


def error_page(
    status: int,
    title: str,
    message: str,
    action: tuple[str, str] | None,
    request_id: str = "",
) -> bytes:
    """Return a page that says what is wrong. All texts are escaped here."""
    link = mark = ""
    if request_id:
        mark = f'\n<p class="mark">Request {html.escape(request_id)}</p>'
    if action is not None:
        path, words = action
        link = f'\n<a href="{html.escape(path)}">{html.escape(words)}</a>'
    return (
        "<!doctype html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<p class="status">{status} {_phrase(status)}</p>\n<h1>{html.escape(title)}</h1>\n'
        f"<p>{html.escape(message)}</p>{link}{mark}\n</main>\n</body>\n</html>\n"
    ).encode()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
