"""What small networks are trained on."""

from lens_interventions.experiments.design.small_networks.corpus import corpus_of
from tests.support.small_scratch import SMALL


def test_held_out_windows_share_no_run_with_the_training_text():
    corpus = corpus_of(SMALL.corpus)
    runs = {tuple(run) for run in corpus.training.unfold(0, 24, 1).tolist()}
    for window in corpus.windows:
        assert runs.isdisjoint(tuple(run) for run in window.unfold(0, 24, 1).tolist())
    assert corpus.training[0] == 0
    assert "".join(corpus.tokenizer.decode(corpus.windows[0])) != ""
