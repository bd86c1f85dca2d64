"""A lens fitted to a little that the model wrote reads prose better than one fitted to a manual.

KL(final ‖ point) in nats, averaged over the points, on the package's own prose: of the raw lens and
of fits to the Python reference and to samples of the model, as plain regression and at full length.
"""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from transformer_lens.model_bridge import TransformerBridge

import lens_interventions as li
from benchmarks.command import run
from benchmarks.results import Row
from lens_interventions.model.tokens import TextOrTokens


def measure(quick: bool) -> list[Row]:
    """The divergence of each lens, beside the goals for a fit in closed form and a refined one."""
    n_topics, n_samples, n_texts, length = (12, 12, 2, 16) if quick else (None, 256, None, 256)
    bridge = li.load_model(device="cpu")
    tests = [document.text for document in li.materials.prose()[:n_texts]]
    topics = [topic.text for topic in li.materials.python_reference()[:n_topics]]
    samples = list(li.sample_texts(bridge, n_samples, length=length // 2))

    def kl(lens: li.AffineLens | None) -> float:
        options = {"max_tokens": length, "positions": (1, None), "progress": False}
        return float(li.lens_over(bridge, tests, lens=lens, **options).means("kl_final").mean())

    rows = [Row(work="raw", measured=kl(None), unit="nats")]
    corpora: dict[str, Iterable[TextOrTokens]] = {
        "Python reference": topics,
        "samples": samples,
        "first samples": samples[:96],  # as many as the default lens is fitted to
    }
    for name, texts in corpora.items():
        for full_length, lens in _lenses(bridge, texts, window=length):
            tokens = lens.settings["tokens"]
            rows.append(
                Row(
                    work=f"{name}, {tokens} tokens, {'full length' if full_length else 'plain'}",
                    measured=kl(lens),
                    unit="nats",
                    at_most=2.3 if full_length and name == "samples" else 3.0,
                )
            )
    return rows


def _lenses(
    bridge: TransformerBridge, texts: Iterable[TextOrTokens], *, window: int
) -> Iterator[tuple[bool, li.AffineLens]]:
    """A plain fit and one at full length, from one pass over the texts."""
    with tempfile.TemporaryDirectory() as folder:
        for full_length in (False, True):
            yield (
                full_length,
                li.fit_affine_lens(
                    bridge,
                    texts,
                    window=window,
                    full_length=full_length,
                    checkpoint=Path(folder) / "sums",
                    progress=False,
                ),
            )


if __name__ == "__main__":
    run(measure)
