"""The page in a real browser: nothing goes wrong in it, nothing leaves it, every anchor leads somewhere."""

import shutil

import pytest

from sppnet_cli.report.page import write_results_page

playwright = pytest.importorskip("playwright.sync_api", reason="needs sppnet[browser]")
pytestmark = pytest.mark.slow
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def browser():
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("no browser is installed")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=program, args=["--no-sandbox"], timeout=120_000)
        yield found
        found.close()


@pytest.fixture(scope="module")
def address(results, tmp_path_factory):
    return write_results_page(results, tmp_path_factory.mktemp("page") / "page.html").as_uri()


@pytest.fixture
def opened(browser, address):
    """Open the page: it, and what went wrong or was asked for elsewhere until now."""
    contexts = []

    def open_page(**settings):
        context = browser.new_context(**settings)
        contexts.append(context)
        page, wrong = context.new_page(), []
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(request.url))
        page.on(
            "request",
            lambda request: None if request.url.startswith((address, "data:")) else wrong.append(request.url),
        )
        page.goto(address)
        return page, wrong

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_goes_wrong_and_nothing_leaves_the_page(opened, width, scheme):
    page, wrong = opened(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # no sideways scrolling
    broken = "[...document.images].filter(each => !each.complete || !each.naturalWidth).length"
    assert page.evaluate(broken) == 0
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (colour == "rgb(255, 255, 255)") == (scheme == "light")
    assert wrong == []


def test_every_anchor_leads_to_a_place_that_can_be_seen(opened):
    page, wrong = opened()
    links = page.evaluate(
        "[...document.querySelectorAll('a[href^=\"#\"]')].map(each => each.getAttribute('href'))"
    )
    assert len(links) > 40
    for link in dict.fromkeys(links):
        page.evaluate("link => { location.hash = link }", link)
        assert page.evaluate("document.querySelector(':target') !== null"), link
    assert wrong == []


def test_tables_are_sorted_and_come_back_to_the_papers_order(opened):
    page, wrong = opened()
    heads = "#table6 ~ .scroll thead button"
    first = (
        "(document.querySelector('#table6 ~ .scroll tbody')).innerText.split('\\n')[0].trim().split('\\t')[0]"
    )
    orders = []
    for _ in range(3):
        orders.append(page.evaluate(first))
        page.locator(heads).nth(1).click()
    orders.append(page.evaluate(first))
    assert orders == ["pool5", "conv speedup vs R-CNN", "conv time (s)", "pool5"]
    assert wrong == []


def test_all_is_there_without_a_script(opened):
    page, wrong = opened(java_script_enabled=False)
    text = page.locator("main").inner_text()
    assert "60.2 ± 0.2" in text
    assert "What was not measured" in text
    assert page.locator("button").count() == 0
    assert wrong == []
