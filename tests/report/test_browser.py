"""The pages in headless Chromium: no complaint, no request, and it answers to a person."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import CHROMIUM, Browser

from distill.report.frontier import write_frontier
from distill.report.page import write_page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium"),
]

VISIBLE_POINTS = """[...document.querySelectorAll('figure:not([hidden]) .point')]
    .filter(point => point.getClientRects().length)"""
WIDTHS = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
SELECTED = """[document.querySelector('tr.selected').dataset.trial,
    [...document.querySelectorAll('.configuration')]
        .filter(one => one.getClientRects().length).map(one => one.dataset.trial).join()]"""


@pytest.fixture(scope="module")
def written(record, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    write_page(record, folder / "report.html")
    write_frontier(folder, record.trials, record.goals, record.searched)
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture(autouse=True)
def no_complaint_and_no_request(browser):
    browser.complaints.clear()
    browser.requests.clear()
    yield
    assert browser.complaints == []
    assert all(address.startswith(("file:", "data:", "blob:")) for address in browser.requests)


@pytest.mark.parametrize("width", [375, 1280])
def test_a_click_on_a_point_selects_its_trial(browser, written, width):
    browser.open(written / "report.html", width)
    scroll_width, window = browser.value(WIDTHS)
    assert scroll_width <= window == width
    wanted, x, y = browser.value(f"""(() => {{
        const point = {VISIBLE_POINTS}.at(-2);
        point.scrollIntoView({{block: "center"}});
        const box = point.querySelector(".mark").getBoundingClientRect();
        return [point.dataset.trial, box.x + box.width / 2, box.y + box.height / 2];
    }})()""")
    assert browser.value(SELECTED)[0] != wanted
    browser.click(x, y)
    assert browser.value(SELECTED) == [wanted, wanted]
    expected = f"{wanted} is selected: its configuration is shown"
    assert browser.value("document.getElementById('status').textContent") == expected


@pytest.mark.parametrize("width", [390, 1280])
def test_a_table_with_hidden_columns_shows_that_it_scrolls(browser, written, width):
    browser.open(written / "report.html", width)
    state = """(() => {
        const box = document.querySelector('#trials .scroll');
        const hint = document.querySelector('#trials .hint');
        return [box.scrollWidth > box.clientWidth, !hint.hidden,
                box.parentNode.classList.contains('more')];
    })()"""
    assert browser.value(state) == [True, True, True]
    browser.value("""new Promise(done => {
        const box = document.querySelector('#trials .scroll');
        box.addEventListener('scroll', () => setTimeout(done, 0), {once: true});
        box.scrollLeft = box.scrollWidth;
    })""")
    assert browser.value(state) == [True, True, False]  # at the end there is no shadow
    narrow = (
        "document.querySelector('#temperature-and-alpha .scrollbox').classList.contains('more')"
    )
    assert browser.value(narrow) is False


def test_points_are_chosen_by_keyboard(browser, written):
    browser.open(written / "report.html", 1280)
    browser.value(f"{VISIBLE_POINTS}.find(point => point.tabIndex === 0).focus()")
    browser.press("ArrowRight")
    browser.press("ArrowRight")
    wanted = browser.value("document.activeElement.dataset.trial")
    assert wanted in browser.value("document.getElementById('tip').textContent")
    browser.press("Enter")
    assert browser.value(SELECTED) == [wanted, wanted]


def test_a_column_sorts_and_an_axis_is_chosen(browser, written):
    browser.open(written / "report.html", 1280)
    column = """[...document.querySelectorAll('#trials tbody tr')]
        .map(row => Number(row.cells[3].dataset.value))"""
    click = "document.querySelectorAll('#trials thead button')[3].click()"
    before = browser.value(column)
    browser.value(click)
    assert browser.value(column) == sorted(before, reverse=True) != before
    browser.value(click)
    assert browser.value(column) == sorted(before)
    browser.value("document.querySelector('input[value=\"student.latency_ms\"]').click()")
    shown = "document.querySelector('figure[data-cost]:not([hidden])').dataset.cost"
    assert browser.value(shown) == "student.latency_ms"


def test_paper_shows_every_configuration_of_the_frontier(browser, written, record):
    browser.open(written / "report.html", 695)  # A4 without its margins
    browser.call("Emulation.setEmulatedMedia", media="print")
    visible = browser.value("""[...document.querySelectorAll('.configuration')]
        .filter(one => one.getClientRects().length).length""")
    scroll_width, window = browser.value(WIDTHS)
    browser.call("Emulation.setEmulatedMedia", media="")
    assert scroll_width <= window
    assert visible == browser.value("document.querySelectorAll('.configuration.member').length") > 1


def test_a_script_in_the_page_that_is_not_ours_does_not_run(browser, written):
    text = (written / "report.html").read_text(encoding="utf-8")
    page = written / "injected.html"
    page.write_text(text.replace("<h1>", "<script>window.ran = 1</script><h1>"), encoding="utf-8")
    browser.open(page, 1280)
    assert browser.value("window.ran === undefined")
    assert len(browser.complaints) == 1 and "Content Security Policy" in browser.complaints[0]
    browser.complaints.clear()


def test_the_interactive_frontier_draws(browser, written):
    browser.open(written / "frontier.html", 1280)
    assert browser.value("document.querySelectorAll('.scatterlayer .point').length") > 20
    buttons = browser.value(
        "[...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title)"
    )
    assert buttons and not any("Share" in title or "Cloud" in title for title in buttons)
