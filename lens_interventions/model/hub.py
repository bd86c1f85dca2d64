"""The Hugging Face hub: whether it can be reached, and how to work without it."""

import ssl
import threading
import urllib.error
import urllib.request
from contextlib import AbstractContextManager, nullcontext

import huggingface_hub.constants as hub

from .shared_settings import SharedSetting

PATIENCE = 5.0  # seconds for the hub to answer at all, before it counts as unreachable

_offline = SharedSetting(
    lambda: hub.HF_HUB_OFFLINE, lambda value: setattr(hub, "HF_HUB_OFFLINE", value), other=True
)


def hub_answers() -> bool:
    """Whether the hub may be asked and answers in time; its own client would try for minutes."""
    if hub.is_offline_mode():
        return False
    answered = threading.Event()

    def ask() -> None:
        try:
            request = urllib.request.Request(hub.ENDPOINT, method="HEAD")
            urllib.request.urlopen(request, timeout=PATIENCE).close()
        except urllib.error.HTTPError:
            pass  # an answer
        except OSError as error:
            # The client may know a certificate that Python does not know.
            if not isinstance(getattr(error, "reason", None), ssl.SSLError):
                return
        answered.set()

    # In a thread, because the lookup of the hub's address has no time limit.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    return answered.is_set()


def hub_offline() -> AbstractContextManager[None]:
    """Inside, do not ask the hub: only files in the local cache are found.

    All threads share the setting, so none of them reaches the hub while one is inside.
    """
    return _offline.changed()


def hub_if_it_answers() -> AbstractContextManager[None]:
    """Inside, the hub is asked if it answers now, and otherwise only the local cache."""
    return nullcontext() if hub_answers() else hub_offline()
