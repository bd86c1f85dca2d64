"""Checks that a large model has passed, remembered for the next process that loads it.

A check that runs a model takes seconds each time a program starts. Its answer depends only on
weights, versions and code, so it is kept in the user's cache directory under a hash of all three.
Only a success is kept: a failure may be due to chance, so the check is made again. Nothing is kept
under the user's own hooks and forwards of single modules, since their code does not say what they
have at hand, nor for networks without a config of transformers.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from .._files import write_text
from .capabilities import weights_processed
from .fingerprint import fingerprint
from .kinds import text_config, weight_dtype
from .product import product_dtype
from .replaced_forwards import forwards_of_user
from .user_cache import cache_directory
from .user_hooks import lasting_hooks
from .versions import running_versions

# Trying a smaller model takes less time than reading its code.
_LARGE = 2**24  # parameters


def is_kept(bridge: TransformerBridge, question: str) -> bool:
    """Whether this model, with this code, has passed the check in an earlier process."""
    return _is_for_files(bridge) and _file(bridge, question).exists()


def keep_right(bridge: TransformerBridge, question: str) -> None:
    """Let later processes know that a large model has passed the check."""
    if not _is_for_files(bridge):
        return
    file = _file(bridge, question)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, f"{bridge.cfg.model_name}: {question}: right\n")
    except OSError:
        pass  # if the cache cannot be written, each process tries again, for seconds


def _is_for_files(bridge: TransformerBridge) -> bool:
    size = sum(parameter.numel() for parameter in bridge.original_model.parameters())
    as_loaded = not (lasting_hooks(bridge) or forwards_of_user(bridge))
    return size >= _LARGE and as_loaded and text_config(bridge) is not None


def _file(bridge: TransformerBridge, question: str) -> Path:
    """The file, named by a hash of the question and of everything that the answer depends on."""
    config: Any = bridge.original_model.config
    known = [
        question,
        fingerprint(bridge),
        str(weights_processed(bridge)),
        f"{weight_dtype(bridge)} {product_dtype(bridge.W_E)} {bridge.cfg.device}",
        str(getattr(config, "_attn_implementation", None)),
        config.to_json_string(),
        *running_versions().values(),
        _own_code(),
        *_code_of(bridge),
    ]
    name = hashlib.sha256("\n".join(known).encode()).hexdigest()
    return cache_directory() / "checks" / name


@cache
def _own_code() -> str:
    hashed = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        hashed.update(path.read_bytes())
    return hashed.hexdigest()


def _code_of(bridge: TransformerBridge) -> Iterator[str]:
    """The forward of every module's class, which a user may have replaced."""
    for name, module in bridge.original_model.named_modules():
        yield f"{name} {type(module).__qualname__} {_described(type(module).forward)}"


def _described(function: Callable[..., Any], around: tuple[object, ...] = ()) -> str:
    """The code of a function as text, with the plain values and functions that it has at hand.

    It is the same in every process. `around` are the functions that have this one at hand.
    """
    if not isinstance(function, FunctionType) or function in around:
        return repr(getattr(function, "__qualname__", type(function)))
    around = (*around, function)
    held = [cell.cell_contents for cell in function.__closure__ or ()]
    at_hand = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *held]
    return f"{_code(function.__code__)} {[_value(each, around) for each in at_hand]}"


def _value(value: object, around: tuple[object, ...]) -> str:
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, Mapping):
        value = tuple(value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        parts = [_value(each, around) for each in value]
        return str(sorted(parts) if isinstance(value, (set, frozenset)) else parts)
    return _described(value, around) if callable(value) else type(value).__qualname__


def _code(code: CodeType) -> str:
    constants = [
        _code(value)
        if isinstance(value, CodeType)
        # Their order differs between processes.
        else (str(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value))
        for value in code.co_consts
    ]
    return f"{code.co_code.hex()} {code.co_names} {constants}"
