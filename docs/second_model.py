"""Make the picture and tables of docs/findings/second-model.md: `docs/second_model.py MODEL`.

MODEL is whatever `lens_interventions.load_model` takes, such as the path of a GGUF file. The script
measures it beside the embedded model, and takes some minutes on two cores.
"""

import sys
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge

import lens_interventions as li
from lens_interventions.model.text_pieces import bos_id, cut
from lens_interventions.pages.demo.example_texts import PLASMA, PLASMA_WORD

IMAGES = Path(__file__).parent / "images"
STRENGTHS = (0.003, 0.01, 0.03, 0.1)
SOURCES = ("true", "current", "direction")


def main(second: str) -> None:
    """Write the picture of the second model, and print the tables of both."""
    reads, changes = [], []
    for model in (None, second):
        bridge = li.load_model(model, device="cpu")
        if model is not None:
            word = li.logit_lens(bridge, PLASMA + PLASMA_WORD)
            li.plots.save(word[-11:-1].plot("top1"), IMAGES / "second_plasma.png")
        reads.append({"model": bridge.cfg.model_name} | read(bridge))
        changes.append(patched(bridge).assign(model=bridge.cfg.model_name))
    print(pd.DataFrame(reads).set_index("model").T.to_string(), end="\n\n")
    print(pd.concat(changes).to_string(index=False))


def read(bridge: TransformerBridge) -> dict[str, float | int | str]:
    """What the lens finds about the word, and whether two streams give what the loop gives."""
    trajectory = li.logit_lens(bridge, PLASMA, watch=PLASMA_WORD)
    ranks = trajectory.watched_rank[:, 0, -1, 0]
    top = (ranks == 0).nonzero()[:, 0]
    n_layers = int(bridge.cfg.n_layers)
    return {
        "probability of the word": round(float(trajectory.watched_log_prob[-1, 0, -1, 0].exp()), 3),
        "its worst rank at any layer": int(ranks.max()),
        "points at which it is the top guess": f"{int(top[0])} to {int(top[-1])} of {n_layers}",
        "largest logit difference of two streams and loop": f"{streams_and_loop(bridge):.1g}",
        "mean cosine of residuals, middle layer": round(alikeness(bridge, n_layers // 2), 3),
        "mean cosine of residuals, last layer": round(alikeness(bridge, n_layers - 1), 3),
        "loss on pieces, each with the BOS": round(loss_on_pieces(bridge, bos=True), 1),
        "loss on pieces, without it": round(loss_on_pieces(bridge, bos=False), 1),
    }


@torch.no_grad()
def loss_on_pieces(bridge: TransformerBridge, *, bos: bool) -> float:
    """Nats a token on pieces of 128 tokens from inside six topics of the Python reference."""
    begin = bos_id(bridge) if bos else None
    nats, n = 0.0, 0
    for topic in li.materials.python_reference()[:6]:
        _, *later = cut(bridge.to_tokens(topic.text)[0, :600], 128, bos=begin)
        for piece in (piece for piece in later if len(piece) > 1):
            log_probs = li.teacher_forced_log_probs(bridge, piece[None], None)
            nats, n = nats - float(log_probs.sum()), n + log_probs.numel()
    return nats / n


@torch.no_grad()
def streams_and_loop(bridge: TransformerBridge) -> float:
    """The largest difference, in logits, of teacher forcing in one pass and a run per position."""
    tokens = bridge.to_tokens(PLASMA)
    patch = li.NextTokenPatch(layer=int(bridge.cfg.n_layers) // 2, strength=0.1, scale="norm")
    one_pass = li.teacher_forced_logits(bridge, tokens, patch)[0]
    worst = 0.0
    for known in range(1, tokens.shape[1] + 1):
        prefix = tokens[:, :known]
        hooks = patch.fwd_hooks(bridge, prefix)
        loop = bridge.run_with_hooks(prefix, fwd_hooks=hooks)[0, -1]
        worst = max(worst, float((one_pass[known - 1] - loop).abs().max()))
    return worst


@torch.no_grad()
def alikeness(bridge: TransformerBridge, layer: int) -> float:
    """Mean cosine between what enters a layer at different positions of prose."""
    name, cosines = f"blocks.{layer}.hook_resid_pre", []
    for document in li.materials.prose()[:8]:
        tokens = bridge.to_tokens(document.text)[:, :64]
        _, cache = bridge.run_with_cache(tokens, names_filter=name)
        rows = torch.nn.functional.normalize(cache[name][0, 1:], dim=-1)
        n = len(rows)
        cosines.append((float((rows @ rows.T).sum()) - n) / (n * (n - 1)))
    return sum(cosines) / len(cosines)


def patched(bridge: TransformerBridge) -> pd.DataFrame:
    """Change of the loss on prose, nats a token, by depth, strength and source."""
    n_layers = int(bridge.cfg.n_layers)
    layers = (n_layers // 4, n_layers // 2, n_layers - 1)
    cells = list(product(layers, STRENGTHS, SOURCES))
    patches = [
        li.NextTokenPatch(
            layer=layer, strength=strength, scale="norm", first_position=1, source=source
        )
        for layer, strength, source in cells
    ]
    losses = []
    for document in li.materials.prose()[:8]:
        tokens = bridge.to_tokens(document.text)[:, :64]
        log_probs = li.teacher_forced_log_probs(bridge, tokens, [None, *patches])
        losses.append(-log_probs[:, 0].mean(-1))
    clean, *rest = torch.stack(losses).mean(0).tolist()
    rows = [
        {"layer": layer, "strength": strength, "source": source, "change": loss - clean}
        for (layer, strength, source), loss in zip(cells, rest, strict=True)
    ]
    table = pd.DataFrame(rows).pivot(index=["layer", "source"], columns="strength", values="change")
    return table.round(3).reset_index()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/second_model.py MODEL")
    main(sys.argv[1])
