"""Where the lens has the word at the top, against plain runs."""

import torch

from lens_interventions import logit_lens
from lens_interventions.experiments.copying.word_in_lens import measure_lens
from lens_interventions.experiments.design.conditions import NO_PATCH, Arm
from tests.support.scored_sequences import PATCH, parameters, text, total
from tests.support.tiny import shared_bridge


def test_the_lens_is_read_where_the_word_is_due() -> None:
    bridge = shared_bridge("llama")
    prefixes = {0: [0, 9, 8, 7], 4: [0, 30, 31, 32, 33, 34]}  # the shorter one is padded
    arms = (NO_PATCH, Arm("true", 1, 0.5, "add"), Arm("random", 0, 0.5, "add"))
    guesses: dict[tuple[int, Arm], list[int]] = {}
    for number, prefix in prefixes.items():
        for arm in arms:
            patch = PATCH.patches(bridge, [arm])[0]
            seeds = torch.tensor([number])
            hooks = patch.fwd_hooks(bridge, prefix, text_seeds=seeds) if patch else []
            with bridge.hooks(fwd_hooks=hooks):
                guesses[number, arm] = logit_lens(bridge, prefix).top_ids[:, 0, -1, 0].tolist()
    assert guesses[4, arms[0]] != guesses[4, arms[1]], "the patch must show in the lens"
    words = {number: guesses[number, NO_PATCH][2] for number in prefixes}
    texts = [text(n, [*prefix, words[n], 3], copied=2) for n, prefix in prefixes.items()]
    with torch.no_grad():
        rows = measure_lens(bridge, **parameters(texts, arms))
    for (number, arm), by_point in guesses.items():
        expected = [guess == words[number] for guess in by_point]
        top = [total(rows, arm, number, "lens_top", f"point-{p}") for p in range(len(by_point))]
        assert top == [float(value) for value in expected]
        first = expected.index(True) if any(expected) else len(expected)
        assert total(rows, arm, number, "lens_first") == first
