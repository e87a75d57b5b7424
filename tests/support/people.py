"""What people do on the hub's pages."""

from playwright.sync_api import Page, expect

from support.accounts import Account
from support.lab import Lab


def sign_in_with_password(page: Page, url: str, account: Account) -> None:
    """Fill in the sign-in form; ends where the hub sends the browser."""
    page.goto(f"{url}hub/login")
    page.locator("#username").fill(account.name)
    page.locator("#password").fill(account.password)
    page.locator("#sign-in").click()


def sign_in_with_link(page: Page, link: str) -> None:
    """Open a one-time link and press its button."""
    page.goto(link)
    page.get_by_role("button").click()


def arrive_in_lab(page: Page, name: str) -> Lab:
    """Follow a start until JupyterLab is there."""
    page.wait_for_url(f"**/user/{name}/lab**", timeout=60_000)
    lab = Lab(page)
    lab.wait_until_loaded()
    return lab


def stop_server(page: Page, url: str) -> None:
    """Press Stop on the home page and wait until the server has stopped."""
    page.goto(f"{url}hub/home")
    page.locator("#stop").click()
    expect(page.locator("#start")).to_be_visible(timeout=60_000)
