"""The page as a person uses it, in a real browser; skipped where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asgi import over_http, serve_http
from worded import texts, worded_run

from ray_xml.predictor import Predictor

serve_http()
playwright = pytest.importorskip("playwright.sync_api", reason="needs: pip install playwright")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
if BROWSER is None:
    pytest.skip("there is no Chromium", allow_module_level=True)

QUIET = [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
ASKED = texts(1, 3)[0][0]
HOSTILE = "<img src=x onerror=\"document.title='broken'\"> & <b>bold</b>"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    predictor = Predictor.load(worded_run(tmp_path_factory.mktemp("worded")).path)
    assert predictor.names is not None
    predictor.names[:] = [f"{name} {HOSTILE}" for name in predictor.names]
    folder = tmp_path_factory.mktemp("counts")
    with over_http(predictor, folder, "12 labels of <tests>") as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        options = [*QUIET, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        opened = started.chromium.launch(executable_path=BROWSER, args=options)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """Fails if the page breaks its policy or its script throws."""
    opened = browser.new_page(viewport={"width": 900, "height": 800})
    said: list[str] = []
    opened.on("console", lambda one: said.append(one.text) if one.type == "error" else None)
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.said = said
    yield opened
    opened.close()


def picture(page: Any, name: str) -> None:
    """Where somebody wants to look: RAY_XML_PICTURES names a folder."""
    folder = os.environ.get("RAY_XML_PICTURES")
    if folder:
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def find(page: Any, text: str) -> None:
    page.get_by_label("Text").fill(text)
    page.get_by_role("button", name="Find labels").click()
    page.wait_for_selector("#go:enabled")


def test_labels_as_bars_with_their_words(page: Any, address: str) -> None:
    page.goto(address)
    find(page, ASKED)
    items = page.locator("#labels li")
    assert items.count() == 5
    first = items.first
    assert first.locator("bdi").first.text_content().endswith(HOSTILE)  # as text
    assert "topic" in first.locator(".terms").text_content()
    percents = items.locator(".name span").all_inner_texts()
    shares = [float(one.removesuffix(" %").removeprefix("< ")) for one in percents]
    widths = [one.bounding_box()["width"] for one in items.locator(".track div").all()]
    whole = first.locator(".track").bounding_box()["width"]
    for share, width in zip(shares, widths, strict=True):
        assert width == pytest.approx(max(whole * share / 100, 2), abs=1.5)
    assert "5 labels in" in page.locator("#told").text_content()
    assert page.locator("#labels img, #labels b").count() == 0
    picture(page, "labels")
    assert page.title() == "Labels for a text"
    assert page.said == []


def test_by_keyboard_without_reasons(page: Any, address: str) -> None:
    page.goto(address)
    page.get_by_label("explain them").uncheck()
    page.get_by_label("Labels").fill("2")
    page.get_by_label("Text").fill(ASKED)
    page.get_by_label("Text").press("Control+Enter")
    page.wait_for_selector("#labels li")
    assert page.locator("#labels li").count() == 2
    assert page.locator(".terms").count() == 0


def test_an_error_is_told_and_goes(page: Any, address: str) -> None:
    page.goto(address)
    find(page, "   ")
    assert page.get_by_role("alert").text_content() == "text is blank; give a text"
    picture(page, "error")
    find(page, ASKED)
    assert page.get_by_role("alert").count() == 0
    page.route("**/tag", lambda route: route.abort())
    find(page, ASKED)
    assert page.get_by_role("alert").text_content() == "the server does not answer"
    assert page.locator("#labels li").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone(browser: Any, address: str, scheme: str) -> None:
    page = browser.new_page(viewport={"width": 340, "height": 700}, color_scheme=scheme)
    page.goto(address)
    find(page, ASKED)
    assert page.evaluate("document.documentElement.scrollWidth") <= 340
    picture(page, f"phone-{scheme}")
    page.goto(f"{address}docs")
    assert page.evaluate("document.documentElement.scrollWidth") <= 340
    picture(page, f"docs-{scheme}")
    page.close()


def test_the_docs(page: Any, address: str) -> None:
    page.goto(f"{address}docs")
    for word in ("POST /tag", "min_probability", "contribution", "413", "curl"):
        assert word in page.inner_text("body")
    picture(page, "docs")
    page.get_by_role("link", name="try it").click()
    assert page.url == address
    assert page.said == []
