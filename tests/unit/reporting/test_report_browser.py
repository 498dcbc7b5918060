"""The page in a real browser, where one is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

BROWSER = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)


def open_page(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Return what the browser logs while it opens the page, and the document that its script leaves."""
    folder.mkdir()
    file = folder / "report.html"
    file.write_text(text)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--enable-logging=stderr"]
    command = [str(BROWSER), *flags, f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=3000", "--dump-dom"]
    return subprocess.run([*command, file.as_uri()], capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_the_browser_has_nothing_to_complain_of_and_the_swipe_comes_alive(page: str, tmp_path: Path) -> None:
    opened = open_page(page, tmp_path / "as_it_is")
    assert "CONSOLE" not in opened.stderr
    assert opened.stdout.count('class="live"') == 2
    assert "50 per cent Map, 50 per cent Truth" in opened.stdout


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_the_policy_stops_a_script_that_would_slip_in(page: str, tmp_path: Path) -> None:
    opened = open_page(page.replace("</main>", "<script>document.title = 'taken'</script></main>"), tmp_path / "attacked")
    assert "CONSOLE" in opened.stderr
    assert "<title>taken" not in opened.stdout


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_the_slider_moves_the_seam_and_the_lists_choose_the_pictures(page: str, tmp_path: Path) -> None:
    moves = """<script>
    const range = document.querySelector("input[type=range]"), right = document.querySelectorAll("select")[1];
    range.value = 20; range.dispatchEvent(new Event("input"));
    right.value = 2; right.dispatchEvent(new Event("input"));
    </script></body>"""
    without_policy = re.sub(r"<meta http-equiv=[^>]*>", "", page)
    opened = open_page(without_policy.replace("</body>", moves), tmp_path / "moved")
    assert "20 per cent Map, 80 per cent Scene" in opened.stdout
    assert "inset(0px 80% 0px 0px)" in opened.stdout
    assert "left: 20%" in opened.stdout
