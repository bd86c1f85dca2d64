"""Names of networks for readers."""


def name_of(blocks: int, entry: int) -> str:
    """A network in words."""
    return f"{blocks} block{'s' if blocks > 1 else ''}, written to at block {entry}"
