"""A lens in the format of tuned-lens 0.2, which saves one nn.Linear for each layer."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformer_lens.model_bridge import TransformerBridge


def write_checkpoint(folder: Path, bridge: TransformerBridge, **config: Any) -> torch.nn.ModuleList:
    """Write a folder for the bridge, with `config` over its own; return its maps in float64."""
    folder.mkdir()
    torch.manual_seed(0)
    width, n_layers = int(bridge.cfg.d_model), int(bridge.cfg.n_layers)
    translators = torch.nn.ModuleList([torch.nn.Linear(width, width) for _ in range(n_layers)])
    torch.save(translators.state_dict(), folder / "params.pt")
    # The unembedding as transformers holds it, not as the bridge shows it.
    weight = bridge.original_model.get_output_embeddings().weight.detach()
    printed = np.array_str(weight.float().numpy(), precision=1)
    config = {
        "base_model_name_or_path": "tiny",
        "base_model_revision": None,
        "d_model": width,
        "num_hidden_layers": n_layers,
        "bias": True,
        "unembed_hash": hashlib.sha256(printed.encode()).hexdigest(),
        "lens_type": "linear_tuned_lens",
    } | config
    (folder / "config.json").write_text(json.dumps(config))
    return translators.double()
