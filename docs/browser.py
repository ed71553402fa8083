"""Start Chromium to take the pictures of the documentation. Needs the extra test."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Page, sync_playwright


@contextlib.contextmanager
def opened(width: int, height: int, **options: Any) -> Iterator[Page]:
    """Yield an empty page, `width` x `height` in CSS pixels; close the browser on leaving.

    Args:
        options: of Playwright's `new_page`.
    """
    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser.new_page(viewport={"width": width, "height": height}, **options)
        finally:
            browser.close()
