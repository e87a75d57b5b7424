"""What every page says to the browser about what it may do. Pure."""


def page_headers(hub_prefix: str, user_origins: str = "") -> dict[str, str]:
    """Return the headers of every page.

    Args:
        user_origins: Where forms may lead to beside our own origin: browsers hold the redirects
            that answer a form, on to somebody's server, against the policy as well.

    Nothing inline runs, nothing comes from elsewhere, nobody frames a page, and a window that a
    neighbour opens shares nothing with it (`Cross-Origin-Opener-Policy`).
    """
    policy = (
        "frame-ancestors 'none'",
        f"report-uri {hub_prefix}security/csp-report",
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        f"form-action 'self' {user_origins}".rstrip(),
        "base-uri 'none'",
    )
    return {
        "Content-Security-Policy": "; ".join(policy),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }


NO_REFERRER = {"Referrer-Policy": "no-referrer"}
"""For pages whose own address is a secret."""
