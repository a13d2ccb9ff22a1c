"""The page in a browser, as a visitor uses it."""

from __future__ import annotations

import shutil
from urllib.parse import urlparse

import cv2
import numpy as np
import pytest
from PIL import Image

from vpd.data import tabletop

pytestmark = pytest.mark.slow


@pytest.fixture
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    found = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if found is None:
        pytest.skip("there is no Chromium (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as own:
        browser = own.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


def test_a_picture_a_sentence_a_mask(page, browser, tmp_path):
    picture = tabletop.render(3_000_000).image
    cv2.imwrite(str(tmp_path / "scene.png"), picture[..., ::-1])
    (tmp_path / "broken.png").write_bytes((tmp_path / "scene.png").read_bytes()[:300])
    tab = browser.new_page()
    asked, errors = [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(page.address)
    button = tab.get_by_role("button", name="Answer")
    button.wait_for(timeout=60_000)
    said = tab.get_by_label("in words")

    def said_after_click():
        before = said.input_value()
        button.click()
        tab.wait_for_function(
            "([field, before]) => field.value && field.value !== before",
            arg=[said.element_handle(), before], timeout=60_000,
        )  # fmt: skip
        return said.input_value()

    def toast():
        button.click()
        message = tab.locator(".toast-body").last
        message.wait_for(timeout=60_000)
        text = message.inner_text()
        tab.locator(".toast-close").last.click()
        message.wait_for(state="detached")
        return text

    assert "no picture yet" in toast()
    with tab.expect_response(lambda answer: "/upload?" in answer.url):
        tab.locator("input[type=file]").first.set_input_files(str(tmp_path / "scene.png"))
    tab.get_by_label("sentence").fill("the leftmost cube")
    expected = page.model(picture, "the leftmost cube")
    assert f"{expected.mask.mean():.1%}" in said_after_click()

    with tab.expect_download() as download:
        tab.get_by_label("Download", exact=False).first.click()
    shown = np.asarray(Image.open(download.value.path()).convert("RGB"))
    assert shown.shape == (512, 512, 3)
    changed = (shown[::4, ::4] != picture).any(-1)
    assert changed.any()
    assert not changed[~expected.mask].any()

    slider = tab.get_by_label("number input", exact=False).first
    slider.fill("500")
    slider.press("Tab")
    noisy = said_after_click()
    assert noisy
    for name in ("mask", "probability", "“cube”"):
        assert tab.get_by_text(name, exact=True).count()

    assert not errors
    assert {urlparse(url).netloc for url in asked if not url.startswith(("data:", "blob:"))} == {
        urlparse(page.address).netloc
    }
