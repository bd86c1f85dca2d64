"""Tabs of a headless browser, driven through the DevTools protocol."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from choreographer import Browser
from choreographer.browser_async import Tab

_PATIENCE = 120.0  # seconds for what a busy machine does in one


class Page:
    """One tab, and what it said that it should not have."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tab: Tab) -> None:
        """Listen to a tab that is open."""
        self._loop, self._tab = loop, tab
        self.complaints: list[str] = []
        for event in ("Runtime.exceptionThrown", "Log.entryAdded"):
            tab.subscribe(event, self._hear)
        for domain in ("Runtime", "Log", "Page"):
            self.send(f"{domain}.enable")

    async def _hear(self, message: dict[str, Any]) -> None:
        self.complaints.append(json.dumps(message["params"])[:2000])

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol, and its result."""
        sent = self._tab.send_command(method, params=parameters)
        answered = self._loop.run_until_complete(asyncio.wait_for(sent, _PATIENCE))
        assert "error" not in answered, answered
        return answered["result"]

    def js(self, expression: str) -> Any:
        """The value of an expression, awaited if it is a promise."""
        result = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, condition: str) -> Any:
        """The first value of an expression that is true."""
        end = time.monotonic() + _PATIENCE
        while not (value := self.js(condition)):
            assert time.monotonic() < end, f"{condition} never came true: {self.js(_SEEN)}"
            self._loop.run_until_complete(asyncio.sleep(0.05))
        return value

    def visit(self, url: str) -> None:
        """Go to an address, where another page may have been."""
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=url)
        self.wait("location.protocol === 'http:' && document.body?.dataset.busy")

    def open(self, url: str) -> None:
        """Go to an address, and wait until its page has run what it begins with."""
        self.visit(url)
        self.wait_idle()

    def wait_idle(self) -> None:
        """Wait until what was asked for is on the page."""
        self.wait("document.body.dataset.busy === 'false'")

    def texts(self, selector: str) -> list[str]:
        """What the elements of a kind say, in order."""
        return self.js(f"[...document.querySelectorAll({selector!r})].map((e) => e.textContent)")

    def type(self, selector: str, text: str) -> None:
        """Replace what is in a field, as if it were typed, and wait for the answer."""
        before = self.js("document.body.dataset.answers")
        self.js(f"document.querySelector({selector!r}).focus()")
        self.js(f"document.querySelector({selector!r}).select()")
        self.send("Input.insertText", text=text)
        self.wait(f"document.body.dataset.answers !== {before!r}")

    def press(self, key: str) -> None:
        """Press a key and let it go."""
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def click(self, selector: str) -> None:
        """Press the mouse on the middle of an element."""
        self.js(f"document.querySelector({selector!r}).scrollIntoView({{ block: 'center' }})")
        box = self.js(f"document.querySelector({selector!r}).getBoundingClientRect().toJSON()")
        self.click_at(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)

    def click_at(self, x: float, y: float) -> None:
        """Press the mouse at a place of the window."""
        for kind, buttons in (("mouseMoved", 0), ("mousePressed", 1), ("mouseReleased", 0)):
            self.send(
                "Input.dispatchMouseEvent",
                type=kind, x=x, y=y, button="left", buttons=buttons, clickCount=1,
            )  # fmt: skip


_SEEN = "[location.href, document.body?.innerText.slice(0, 600)]"


@contextmanager
def headless() -> Iterator[Any]:
    """A browser; call what comes for a new tab. The browser ends with the block."""
    loop = asyncio.new_event_loop()

    def new_page() -> Page:
        return Page(loop, loop.run_until_complete(browser.create_tab("about:blank")))

    browser = Browser(headless=True, enable_sandbox=False)
    loop.run_until_complete(browser.open())
    try:
        yield new_page
    finally:
        loop.run_until_complete(browser.close())
        loop.close()
