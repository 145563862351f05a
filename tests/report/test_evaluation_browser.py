"""The page of an evaluation in headless Chromium: nothing is fetched, and it fits a phone."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from evaluations import evaluated

from distill.report.evaluation import write

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium"),
]
WIDTHS = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
TOO_WIDE = """[...document.querySelectorAll('.scroll')]
    .filter(box => box.scrollWidth > box.clientWidth).length"""
FITS = """[...document.querySelectorAll('.scroll')]
    .every(box => box.getBoundingClientRect().right <= document.documentElement.clientWidth)"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = evaluated("attack.budget=4", "attack.num_samples=6")
    return write(found, tmp_path_factory.mktemp("evaluation"))[0]


def test_it_reads_on_a_desk_and_on_a_phone(
    page: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        for width in (1280, 390):
            browser.open(page, width)
            scroll_width, window = browser.value(WIDTHS)
            assert scroll_width <= window == width
            assert browser.value(FITS)
            # Wide tables scroll inside their box.
            assert (browser.value(TOO_WIDE) > 0) == (width == 390)
        loaded = "[...document.images].every(image => image.naturalWidth > 500)"
        assert browser.value(loaded)
        assert browser.complaints == []
        assert all(address.startswith(("file:", "data:")) for address in browser.requests)
