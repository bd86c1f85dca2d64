"""The demo page on the default model, opened in a browser."""

import shutil
import subprocess

import pytest

from lens_interventions.demo import SECTIONS, build_page


@pytest.fixture(scope="module")
def page(default_bridge, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "index.html"
    build_page(default_bridge, path)
    return path


def test_the_page_is_one_file_with_every_section(page):
    text = page.read_text()
    assert text.count("<section") >= len(SECTIONS)
    assert 'src="http' not in text
    assert page.stat().st_size < 8 * 2**20


def test_the_page_draws_without_console_errors(page, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    assert browser, "install Debian's chromium: the page has to be seen in a browser"
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path}", "--virtual-time-budget=20000", "--enable-logging=stderr",
            "--dump-dom", page.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=180,
    )  # fmt: skip
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert console == []
    assert done.stdout.count("main-svg") > 10
