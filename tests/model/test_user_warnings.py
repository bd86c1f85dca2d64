"""Warnings point at the user's line, whatever decorators are between."""

from concurrent.futures import ProcessPoolExecutor

from tests.support.processes import PROCESSES, printed

# A process of its own, as the type checks of a test session are frames too.
CALLS = """
import warnings
import torch
import lens_interventions as li
from tests.support.tiny import tiny_bridge

bridge = tiny_bridge("bloom")
patch = li.NextTokenPatch(layer=1, strength=0.5, positions=[7], embedding="W_U")
pad = bridge.tokenizer.pad_token_id
padded = torch.tensor([[5, 6, 7, 8], [5, 6, pad, pad]])
calls = [
    lambda: li.logit_lens(bridge, padded),
    lambda: li.teacher_forced_log_probs(bridge, padded),
    lambda: li.teacher_forced_log_probs(bridge, [[5, 6, 7]], patch),
    lambda: patch.fwd_hooks(bridge, torch.tensor([[5, 6, 7]])),
    lambda: li.slope_map(tiny_bridge("llama"), [padded], scopes=["all"]),
    lambda: li.generate(bridge, padded, max_new_tokens=1, do_sample=False),
]
for call in calls:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        call()
    assert caught
    print({warning.filename for warning in caught})
"""


def test_a_warning_names_the_line_that_called_the_library():
    with ProcessPoolExecutor(1, mp_context=PROCESSES) as executor:
        found = executor.submit(printed, CALLS).result()
    assert found.splitlines() == ["{'<string>'}"] * 6
