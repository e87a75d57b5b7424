"""Driving a real JupyterLab in a browser, as a person would."""

import re

from playwright.sync_api import Locator, Page, expect

KERNEL_START_MS = 60_000


class Lab:
    """One browser tab with JupyterLab in it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        # What JupyterLab asks when its server was out of reach for long, as on a busy machine.
        gone = page.get_by_role("dialog", name=re.compile("Server unavailable"))
        page.add_locator_handler(gone, lambda: gone.get_by_text("Dismiss").click())

    def wait_until_loaded(self) -> None:
        """Return when JupyterLab is there and its splash is gone."""
        expect(self.page.locator("#jupyterlab-splash")).to_have_count(0, timeout=60_000)
        expect(self.page.locator("#jp-main-dock-panel")).to_be_visible(timeout=60_000)

    def new_notebook(self) -> None:
        """Open a Python notebook from a new launcher and wait for its kernel."""
        self.page.get_by_role("button", name=re.compile("New Launcher")).first.click()
        card = self.page.locator('.jp-LauncherCard[data-category="Notebook"]:visible').first
        card.click(timeout=60_000)
        self.wait_until_idle()

    def wait_until_idle(self) -> None:
        """Return when the kernel of the notebook in front says it has nothing to do.

        The notebook's own indicator says so before there is a kernel at all, and a cell that is run
        then is not run; the status bar names the kernel's state once it is connected.
        """
        bar = self.page.locator("#jp-main-statusbar")
        expect(bar).to_contain_text("| Idle", timeout=KERNEL_START_MS)
        indicator = self._notebook.locator(".jp-Notebook-ExecutionIndicator")
        expect(indicator).to_have_attribute("data-status", "idle", timeout=KERNEL_START_MS)

    @property
    def _notebook(self) -> Locator:
        return self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")

    @property
    def _cells(self) -> Locator:
        return self._notebook.locator(".jp-Notebook .jp-CodeCell")

    def reload(self) -> None:
        """Refresh the tab and wait until the saved notebook is back with its kernel."""
        before = self._cells.count()
        self.page.reload()
        self.wait_until_loaded()
        self.wait_until_idle()
        expect(self._cells).to_have_count(before, timeout=60_000)

    def start(self, code: str) -> Locator:
        """Run code in the last cell of the notebook in front without waiting for it."""
        cell = self._cells.nth(self._cells.count() - 1)
        cell.locator(".cm-content").click()
        self.page.keyboard.insert_text(code)
        self.page.keyboard.press("Shift+Enter")
        expect(cell.locator(".jp-InputPrompt")).not_to_have_text("[ ]:", timeout=KERNEL_START_MS)
        return cell

    def run(self, code: str) -> str:
        """Run code in the last cell of the notebook in front and return what it printed."""
        cell = self.start(code)
        expect(cell.locator(".jp-InputPrompt")).to_have_text(
            re.compile(r"^\[\d+\]:$"), timeout=KERNEL_START_MS
        )
        outputs = cell.locator(".jp-OutputArea-output")
        return outputs.last.inner_text().strip() if outputs.count() else ""

    def save(self) -> None:
        """Save the notebook in front, keeping the name it has."""
        self.page.keyboard.press("Control+s")
        self.page.get_by_role("button", name="Rename and Save").click(timeout=60_000)
        expect(self.page.locator(".jp-mod-current.jp-mod-dirty")).to_have_count(0, timeout=60_000)
