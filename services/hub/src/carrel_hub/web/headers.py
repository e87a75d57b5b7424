"""What every page says to the browser about what it may do. Pure."""


def page_headers(hub_prefix: str) -> dict[str, str]:
    """Return the headers of every page.

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
        "form-action 'self'",
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
