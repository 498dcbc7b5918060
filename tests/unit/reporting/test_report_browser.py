"""The page in a real browser, where one is installed."""

from __future__ import annotations

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
