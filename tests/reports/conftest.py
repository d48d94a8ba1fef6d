from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reports.made_runs import SIZES, Maker


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    """Makes small run folders in the test's own folder."""
    return Maker(tmp_path, dict.fromkeys(SIZES, 12))


@pytest.fixture(scope="session")
def browser() -> Iterator[Callable[..., Any]]:
    """Opens a page in headless Chromium: `browser(path, dark=False, width=1280)` gives the driver."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")
    chrome, driver_path = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not chrome or not driver_path:
        pytest.skip("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    profile = tempfile.mkdtemp(prefix="demur-chromium-")
    options = webdriver.ChromeOptions()
    options.binary_location = chrome
    for flag in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "disable-dev-shm-usage",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "hide-scrollbars",
        f"user-data-dir={profile}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_path))

    def open_page(path: Path, dark: bool = False, width: int = 1280, height: int = 900, media: str = "") -> Any:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [scheme]})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get("about:blank")
        for kind in ("browser", "performance"):
            driver.get_log(kind)
        driver.get(path.resolve().as_uri())
        return driver

    yield open_page
    driver.quit()
    shutil.rmtree(profile, ignore_errors=True)
