"""Words that go on from a text, with a tokenizer that puts a space before whatever it is given."""

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, processors
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedTokenizerFast

from lens_interventions import materials
from lens_interventions.experiments.design.material import CopyingMaterial, template_sequences
from lens_interventions.experiments.design.sequences import continuation
from lens_interventions.experiments.preservation import PreservationSettings, stages
from lens_interventions.experiments.preservation.stages import plan, template_items
from tests.support.architectures import N_CTX
from tests.support.tiny import shared_bridge, tiny_model


@pytest.fixture(scope="module")
def spacing_bridge() -> TransformerBridge:
    """Letters are tokens, and so is every word of the templates with a space before it."""
    words = sorted({f"▁{item.word}" for item in materials.templates()})
    letters = sorted(
        {letter for item in materials.templates() for letter in item.prefix + item.continuation}
        - {" "}
    )
    names = ["<s>", "</s>", "<unk>", "▁", *letters, *words]
    vocabulary = [(name, float(-len(names) if name in letters else -1)) for name in names]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Replace("▁", " ")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    return TransformerBridge.boot_transformers(
        "tiny-spacing",
        hf_model=tiny_model("llama", vocab_size=len(names)),
        device="cpu",
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            name_or_path="tiny-spacing",
            add_bos_token=True,
            bos_token="<s>",
            eos_token="</s>",
            pad_token="</s>",
            unk_token="<unk>",
            model_max_length=N_CTX,
        ),
    )


def test_a_word_is_what_it_adds_to_the_text(spacing_bridge: TransformerBridge) -> None:
    item = materials.templates()[0]
    (word,) = continuation(spacing_bridge, item.prefix, item.continuation)
    assert spacing_bridge.tokenizer.convert_ids_to_tokens(word) == f"▁{item.word}"
    assert continuation(shared_bridge("llama"), "the quick", " fox") == (
        shared_bridge("llama").to_tokens(" fox", prepend_bos=False)[0].tolist()
    )


def test_a_word_that_grows_together_with_the_text_is_spelled_alone() -> None:
    bridge = shared_bridge("llama")
    alone = bridge.to_tokens("e", prepend_bos=False)[0].tolist()
    together = bridge.to_tokens("the", prepend_bos=False)[0].tolist()
    assert together[: -len(alone)] != bridge.to_tokens("th", prepend_bos=False)[0].tolist()
    assert continuation(bridge, "th", "e") == alone


def test_templates_end_with_the_word_and_not_with_its_space(
    spacing_bridge: TransformerBridge,
) -> None:
    sequences = template_sequences(spacing_bridge, CopyingMaterial(template_words=(1, 1)))
    assert {text.copied for text in sequences} == {1}
    items = template_items(spacing_bridge, PreservationSettings(template_words=1))
    assert {len(item["word"]) for item in items} == {1}
    # Some templates begin with their word, where it has no space in other tokenizers.
    assert len(items) >= 96


def test_a_tokenizer_that_spells_no_word_twice_alike_is_refused_at_once(
    spacing_bridge: TransformerBridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "template_items", lambda *_: [])
    with pytest.raises(ValueError, match=r"template_words=1 .*: give more words"):
        plan(
            spacing_bridge,
            PreservationSettings(template_words=1, documents=2, document_tokens=64),
            {},
        )
