"""Pages as a browser shows them."""

import os
import shutil
import subprocess
from pathlib import Path


def browse(url: str, profile: Path, *flags: str) -> tuple[str, list[str]]:
    """The page's DOM once it has drawn, and what it wrote to the console."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    # Without a browser nobody has seen the page; a missing one must not pass for a page that works.
    assert browser, "install Debian's chromium: the page has to be seen in a browser"
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={profile}", "--virtual-time-budget=20000", "--enable-logging=stderr",
            "--allow-file-access-from-files", *flags, "--dump-dom", url,
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        env=os.environ | {"HOME": str(profile)},
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
