"""How pages tell verdicts and intervals."""

import re

INTERVAL = re.compile(r"([-+.\de]+) \[([-+.\de]+), ([-+.\de]+)\]")


def in_short(verdict):
    """Beside a difference from no patch "no effect" would read as if the patch did nothing."""
    no_lead = f"no lead above {verdict.smallest_effect:g}"
    if verdict.outcome == "undecided" and "no lead" in verdict.words:
        return f"{no_lead}, harm undecided"
    return verdict.outcome.replace("no effect", no_lead)
