"""Layers and positions as they are written on a command line."""


def parse_layers(text: str) -> slice | list[int | str]:
    """`0:30:2` is a range, `0,5,final` a list; `input`, `final` and `3_mid` name points.

    Raises `ValueError` for anything else.
    """
    if ":" in text:
        return _parse_range(text, "--layers")
    points: list[int | str] = []
    for part in (part.strip() for part in text.split(",")):
        if not part:
            raise ValueError(f"--layers {text!r}: there is nothing between two commas")
        points.append(int(part) if is_whole(part) else part)
    return points


def parse_positions(text: str) -> slice | list[int]:
    """`-20:` is a range, `0,5,-1` a list, of each text's own positions.

    Raises `ValueError` for anything else.
    """
    if ":" in text:
        found = _parse_range(text, "--positions")
        if found.step is not None and found.step < 1:
            raise ValueError(f"--positions {text!r}: positions go forwards, in steps of 1 or more")
        return found
    parts = [part.strip() for part in text.split(",")]
    if not all(map(is_whole, parts)):
        raise ValueError(f"--positions {text!r}: expected a range like -20: or a list like 0,5,-1")
    return [int(part) for part in parts]


def _parse_range(text: str, option: str) -> slice:
    parts = [part.strip() for part in text.split(":")]
    if len(parts) > 3 or not all(part == "" or is_whole(part) for part in parts):
        raise ValueError(f"{option} {text!r}: expected a range start:stop:step of whole numbers")
    found = slice(*(int(part) if part else None for part in parts))
    if found.step == 0:
        raise ValueError(f"{option} {text!r}: a step cannot be 0")
    return found


def is_whole(text: str) -> bool:
    """Whether it is a whole number, which may be negative."""
    return text.removeprefix("-").isdecimal()
