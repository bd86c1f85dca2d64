"""The architectures of the tiny bridges, each with the entries of its Hugging Face config.

Importing these imports no model: the process that hands tests to others needs their names alone.
"""

from importlib.metadata import version
from typing import Any

import pytest

N_CTX = 128
WINDOW = 6  # of sliding-window attention: shorter than any text worth a test

_MODERN = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": N_CTX,
}
_NO_GROUPS = {**_MODERN, "num_key_value_heads": 4}
_GPT = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": N_CTX}
_MIXED = {
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}

LENS_ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt2": _GPT,
    "gpt_bigcode": _GPT,
    "gptj": {**_GPT, "rotary_dim": 4},
    "codegen": {**_GPT, "n_ctx": N_CTX, "rotary_dim": 4},
    "gpt_neox": {**_NO_GROUPS, "rotary_pct": 0.5},
    "opt": {
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": N_CTX,
    },
    "llama": _MODERN,
    "mistral": {**_MODERN, "sliding_window": WINDOW},
    "mixtral": {
        **_MODERN,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "experts_implementation": "eager",  # the grouped product has no float64
    },
    "qwen2": _MODERN,
    "qwen3": _MODERN,
    "gemma2": {
        **_MODERN,
        **_MIXED,
        "query_pre_attn_scalar": 8,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 5.0,
    },
    "gemma3_text": {**_MODERN, **_MIXED, "query_pre_attn_scalar": 8},
    "phi": {**_NO_GROUPS, "partial_rotary_factor": 0.5},
    "phi3": _MODERN,
    "stablelm": {**_MODERN, "use_qkv_bias": True, "partial_rotary_factor": 0.5},
    "cohere": {**_MODERN, "logit_scale": 0.5},
    "cohere2": {**_MODERN, **_MIXED, "logit_scale": 0.5},
    "falcon": {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "alibi": False,
        "max_position_embeddings": N_CTX,
    },
    "olmo2": _MODERN,
    "granite": {
        **_MODERN,
        "embedding_multiplier": 2.0,
        "residual_multiplier": 0.7,
        "attention_multiplier": 0.3,
        "logits_scaling": 2.0,
    },
    "starcoder2": {**_MODERN, "use_bias": True},
    "smollm3": {**_MODERN, "no_rope_layers": [1, 0, 1]},
}

# What the lens or the two streams must refuse, or must not trust.
PROBLEM_ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 3,
        "num_heads": 4,
        "attention_types": [[["global", "local", "global"], 1]],
        "window_size": WINDOW,
        "max_position_embeddings": N_CTX,
    },
    "mpt": {"d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": N_CTX},
    "bloom": {"hidden_size": 32, "n_layer": 3, "n_head": 4},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 3, "state_size": 4},
    "t5": {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4},
    "llama4_text": {
        **_MODERN,
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        # Longer than what the probe of decoding looks at.
        "attention_chunk_size": 10,
        "intermediate_size_mlp": 48,
    },
    "deepseek_v3": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "q_lora_rank": None,
        "kv_lora_rank": 8,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 4,
        "v_head_dim": 6,
        "first_k_dense_replace": 3,
    },
    "nanochat": _MODERN,
    "openai-gpt": _GPT,
    "jamba": {
        **_MODERN,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "experts_implementation": "eager",
        "use_mamba_kernels": False,
        "mamba_d_state": 4,
        "mamba_dt_rank": 4,
    },
    "rwkv": {"hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 3},
    "zamba2": {
        **_NO_GROUPS,
        "mamba_d_state": 8,
        "mamba_headdim": 8,
        "n_mamba_heads": 8,
        "mamba_ngroups": 1,
        "layers_block_type": ["mamba", "hybrid", "mamba"],
        "hybrid_layer_ids": [1],
        "num_mem_blocks": 1,
        "use_mamba_kernels": False,
    },
}

ARCHITECTURES = {**LENS_ARCHITECTURES, **PROBLEM_ARCHITECTURES}

MPT_WITH_CACHE = pytest.param(
    "mpt",
    id="mpt",
    marks=pytest.mark.xfail(
        version("transformer_lens").startswith("3."),
        reason="MPT fills no cache in TransformerLens 3.9, and is refused",
        strict=True,
    ),
)
"""The parameter for tests that decode MPT with a cache."""
