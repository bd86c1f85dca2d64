"""Tiny random bridges, one per architecture: built from configs, seeded, nothing downloaded.

Every parameter is drawn anew, norms and biases included, so that a forgotten affine, bias or scale
changes the numbers, and weights are large enough for attention and logits to vary.
"""

import functools
from typing import Any

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from tests.support.architectures import ARCHITECTURES, N_CTX
from tests.support.drawn_anew import drawn_anew

D_VOCAB = 112


def tiny_bridge(
    arch: str, *, dtype: torch.dtype = torch.float64, seed: int = 0, **config: Any
) -> TransformerBridge:
    """A new seeded bridge of architecture `arch` in eval mode.

    `config` overrides entries of the Hugging Face config, such as `num_hidden_layers=1`.
    """
    return TransformerBridge.boot_transformers(
        f"tiny-{arch}",
        hf_model=tiny_model(arch, dtype=dtype, seed=seed, **config),
        dtype=dtype,
        device="cpu",
        tokenizer=tiny_tokenizer(),
    )


def long_rope_bridge(limit: int, **config: Any) -> TransformerBridge:
    """A tiny Phi-3 whose rotary frequencies are others in texts of more than `limit` tokens."""
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [1.0, 2.0, 4.0, 8.0],
    }
    return tiny_bridge(
        "phi3", original_max_position_embeddings=limit, rope_parameters=rope, **config
    )


def tiny_model(
    arch: str, *, dtype: torch.dtype = torch.float64, seed: int = 0, **config: Any
) -> PreTrainedModel:
    """The Hugging Face model inside `tiny_bridge`, before TransformerLens takes it apart."""
    tokenizer = tiny_tokenizer()
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    hf_config = AutoConfig.for_model(
        arch, **{"vocab_size": D_VOCAB, **special, **ARCHITECTURES[arch], **config}
    )
    auto = AutoModelForSeq2SeqLM if hf_config.is_encoder_decoder else AutoModelForCausalLM
    model = auto.from_config(hf_config)
    model.config.architectures = [type(model).__name__]
    return drawn_anew(model, seed).to(dtype).eval()


@functools.cache
def shared_bridge(arch: str, dtype: torch.dtype = torch.float64) -> TransformerBridge:
    """The session's one bridge of this kind. Leave it as you found it."""
    return tiny_bridge(arch, dtype=dtype)


def random_tokens(*shape: int) -> torch.Tensor:
    """Ids of pieces of words, none of them special."""
    return torch.randint(4, D_VOCAB, shape)


_CORPUS = """\
Sometimes, when people say plasma, they mean a state of matter. Other times, when people say
plasma, they mean blood. the quick brown fox jumps over the lazy dog; THE QUICK BROWN FOX JUMPS
OVER THE LAZY DOG! and then the people say that the time they mean is the other time? No."""


def spaced_tokenizer() -> PreTrainedTokenizerFast:
    """One of SentencePiece's kind: a space goes before each text, and off what is decoded."""
    space = "\u2581"
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(space), normalizers.Replace(" ", space)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(space, prepend_scheme="never")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(space, " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.train_from_iterator(
        ["when people say plasma they mean a state of matter"] * 3,
        trainers.BpeTrainer(
            vocab_size=D_VOCAB, special_tokens=["<s>", "</s>", "<unk>"], show_progress=False
        ),
    )
    # It keeps merges within words, which only their training needs.
    tokenizer.pre_tokenizer = None
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        name_or_path="tiny-spaced",
        add_bos_token=True,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


@functools.cache
def _trained_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [_CORPUS],
        trainers.BpeTrainer(
            vocab_size=D_VOCAB,
            special_tokens=["<s>", "</s>", "<pad>", "<unk>"],
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
    )
    return tokenizer


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of `D_VOCAB` tokens that prepends `<s>` and pads with `<pad>`.

    It knows English letters, spaces, newlines and a little punctuation.
    """
    return PreTrainedTokenizerFast(
        tokenizer_object=_trained_tokenizer(),
        # TransformerLens reloads by name, from the hub, any tokenizer without these two.
        name_or_path="tiny",
        add_bos_token=True,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=N_CTX,
    )
