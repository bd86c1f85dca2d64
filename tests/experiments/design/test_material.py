"""Material to measure copying on: the two copies, the templates, the halves."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from lens_interventions import materials
from lens_interventions.experiments.design.material import (
    induction_sequences,
    template_sequences,
    text_sequences,
)
from tests.support.small_copying import SETTINGS
from tests.support.tiny import D_VOCAB, shared_bridge, tiny_bridge

pytestmark = pytest.mark.usefixtures("few_templates")


def test_random_tokens_are_said_twice() -> None:
    bridge = shared_bridge("llama")
    sequences = induction_sequences(bridge, SETTINGS)
    assert [s.half for s in sequences] == ["selection"] * 10 + ["report"] * 12
    special = set(bridge.tokenizer.all_special_ids)
    for sequence in sequences:
        bos, *rest = sequence.tokens
        assert bos == bridge.tokenizer.bos_token_id
        assert rest[:16] == rest[16:]
        assert len(set(rest)) == 16
        assert not special & set(rest)
    assert len({s.tokens for s in sequences}) == 22
    assert sequences == induction_sequences(bridge, SETTINGS)
    assert sequences != induction_sequences(bridge, replace(SETTINGS, seed=1))


def test_templates_end_with_the_word_and_share_no_frame_between_halves() -> None:
    bridge = shared_bridge("llama")
    sequences = template_sequences(bridge, replace(SETTINGS, template_words=(2, 4)))
    items = materials.templates()
    for sequence in sequences:
        item = items[sequence.number]
        whole = bridge.tokenizer.decode(sequence.tokens[1:])
        assert whole == f"{item.prefix} {item.word}"
        word = bridge.tokenizer.decode(sequence.tokens[-sequence.copied :])
        assert word == f" {item.word}"
        assert (sequence.cluster, sequence.crossed) == (item.word, item.frame)
        assert {item.frequency, item.distance} <= set(sequence.tags.split())
    frames = {
        half: {items[s.number].frame for s in sequences if s.half == half}
        for half in ("selection", "report")
    }
    assert frames["selection"].isdisjoint(frames["report"])
    assert len(frames["selection"]) == len(frames["report"]) == 2
    counts = pd.Series([s.half for s in sequences]).value_counts()
    assert counts["selection"] == 2 * 2 * 2  # frames, frequencies, words
    assert counts["report"] == 2 * 2 * 4


def test_documents_go_to_one_half_each(tmp_path: Path) -> None:
    bridge = shared_bridge("llama")
    (tmp_path / "mine.txt").write_text("\n\n".join(f"the time of fox {n}" for n in "abcdefg"))
    mine = str(tmp_path / "mine.txt")
    chosen = replace(SETTINGS, texts=(mine, "prose"), documents=(2, 3), document_tokens=9)
    sequences = text_sequences(bridge, chosen)
    halves: dict[str, set[str]] = {"selection": set(), "report": set()}
    for sequence in sequences:
        halves[sequence.half].add(sequence.cluster)
        assert len(sequence.tokens) <= 9
        assert sequence.tokens[0] == bridge.tokenizer.bos_token_id
    assert halves["selection"].isdisjoint(halves["report"])
    assert [len(halves["selection"]), len(halves["report"])] == [4, 6]
    assert sum(cluster.startswith(mine) for cluster in halves["report"]) == 3
    assert len({s.number for s in sequences}) == len(sequences)


def test_a_text_that_is_there_twice_is_on_one_half_only(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("\n\n".join(f"the time of fox {n}" for n in "aabbccdd"))
    chosen = replace(SETTINGS, texts=(str(tmp_path / "mine.txt"),), documents=(9, 9))
    sequences = text_sequences(shared_bridge("llama"), chosen)
    assert len({s.tokens for s in sequences}) == len(sequences) == 4


def test_documents_that_share_a_passage_are_on_one_half(tmp_path: Path) -> None:
    first, *others = (document.text for document in materials.prose()[:8])
    (tmp_path / "mine.txt").write_text("\n\n".join(others))
    # Too little of each for a repeat, but a write trained on one has read it in the other.
    quoting = [f"{text}\n{' '.join(first.split()[:16])} {n}" for n, text in enumerate(others[:5])]
    (tmp_path / "quoting.txt").write_text("\n\n".join([first, *quoting]))
    texts = (str(tmp_path / "mine.txt"), str(tmp_path / "quoting.txt"))
    for seed in range(4):
        chosen = replace(SETTINGS, texts=texts, documents=(9, 9), seed=seed)
        sequences = text_sequences(shared_bridge("llama"), chosen)
        assert len(sequences) == 13
        half_of = {s.cluster: s.half for s in sequences}
        # Those of the second text are connected, and with five of the first text, which come first.
        assert sorted(half_of) == [f"{texts[0]}: {n}" for n in (0, 5, 6)]
        of_group = [s for s in sequences if s.cluster == f"{texts[0]}: 0"]
        assert len(of_group) == 11
        assert len({s.half for s in of_group}) == 1
        assert len(set(half_of.values())) == 2


@pytest.mark.parametrize("name", ["other", "copyable", "bin-0", "repeat-none", "surprise-now"])
def test_a_text_with_the_name_of_a_kind_of_token_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"they would be counted together: write \./{name}"):
        replace(SETTINGS, texts=("prose", name))
    assert replace(SETTINGS, texts=(f"./{name}", f"my {name}")).texts[0] == f"./{name}"


def test_ids_that_only_fill_up_a_matrix_are_not_drawn() -> None:
    bridge = tiny_bridge("llama", vocab_size=D_VOCAB + 400)
    drawn = {i for s in induction_sequences(bridge, SETTINGS) for i in s.tokens}
    assert max(drawn) < D_VOCAB
