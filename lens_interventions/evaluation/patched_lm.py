"""The requests of lm-evaluation-harness, answered by a patched model."""

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformer_lens.model_bridge import TransformerBridge
from transformers import EosTokenCriteria

from .._counter_random import SEEDS_APART
from .._progress import progress_bar
from ..intervention.generation.generate import generate
from ..intervention.patch import NextTokenPatch, require_patch_or_none
from ..intervention.teacher_forcing.continuations import continuation_log_probs
from ..model.argument_types import require_counts, require_whole_numbers
from ..model.fingerprint import fingerprint
from ..model.kinds import weight_dtype
from ..model.user_warnings import warn_user
from .decoding import Decoding, Until

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

Tokens = Sequence[int]


class PatchedLM(TemplateLM):
    """A bridge under a patch; `as_harness_model` makes it and explains its arguments."""

    def __init__(
        self,
        bridge: TransformerBridge,
        patch: NextTokenPatch | None,
        *,
        batch_size: int,
        prepend_bos: bool | None,
        max_length: int | None,
        max_gen_toks: int,
        seed: int,
    ) -> None:
        super().__init__()
        context = int(bridge.cfg.n_ctx)
        max_length = context if max_length is None else max_length
        require_whole_numbers(max_length=max_length, max_gen_toks=max_gen_toks, seed=seed)
        require_counts(batch_size=batch_size, max_gen_toks=max_gen_toks)
        require_patch_or_none(patch)
        if patch is not None:
            patch.bind(bridge)  # checks that it fits the model
        self.bridge, self.patch, self.seed = bridge, patch, seed
        self.tokenizer: Any = bridge.tokenizer
        self.batch_size, self.max_gen_toks = batch_size, max_gen_toks
        self.max_length = max_length
        if not 1 < max_length <= context:
            raise ValueError(
                f"max_length must be from 2 to the model's context {context}, got {max_length}"
            )
        self._prefix = _first_named(self.tokenizer, "bos_token_id", "eos_token_id")
        wanted = bridge.cfg.default_prepend_bos if prepend_bos is None else prepend_bos
        self._bos = _prepended(bridge)
        self._prepend_bos = bool(wanted)

    @property
    def eot_token_id(self) -> int:
        return _first_named(self.tokenizer, "eos_token_id", "bos_token_id")

    @property
    def prefix_token_id(self) -> int:
        return self._prefix

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def get_model_info(self) -> dict[str, str]:
        """The description of the model that the harness writes into its results."""
        return {
            "model_name": str(self.bridge.cfg.model_name),
            "model_fingerprint": fingerprint(self.bridge),
            "model_dtype": str(weight_dtype(self.bridge)),
            "patch": str(self.patch),
        }

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        ids: list[int] = []
        if string:
            # TransformerLens knows whether the tokenizer itself prepends BOS.
            tokens = self.bridge.to_tokens(
                string, prepend_bos=False, truncate=False, move_to_device=False
            )
            ids = tokens[0].tolist()
        wanted = self._prepend_bos if add_special_tokens is None else add_special_tokens
        bos = self._bos
        return [bos, *ids] if wanted and bos is not None and ids[:1] != [bos] else ids

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, Tokens, Tokens]],
        disable_tqdm: bool = False,
        **_: Any,
    ) -> list[tuple[float, bool]]:
        contexts, seeds = [], []
        for asked, context, continuation in requests:
            if not 0 < len(continuation) <= self.max_length:
                raise ValueError(
                    f"a continuation of {len(continuation)} tokens cannot be scored: it must "
                    f"have from 1 to max_length={self.max_length} tokens"
                )
            context = list(context) or [self._prefix]
            contexts.append(context)
            # Answers to one question share their random draws. Windows of a text come without a
            # question, and texts must not share theirs.
            seeds.append(_seed_of(context if asked is not None else [*context, *continuation]))
        continuations = [continuation for *_, continuation in requests]
        # The last token is predicted and not read.
        contexts = _cut(contexts, [self.max_length + 1 - len(each) for each in continuations])
        continued = list(zip(contexts, continuations, strict=True))
        answers: list[Any] = [None] * len(continued)
        lengths = [len(context) + len(continuation) for context, continuation in continued]
        for rows in self._batches(range(len(continued)), lengths, disable_tqdm, "scoring"):
            log_probs, greedy = continuation_log_probs(
                self.bridge,
                [continued[i] for i in rows],
                self.patch,
                text_seeds=torch.tensor([seeds[i] for i in rows]),
            )
            for i, *answer in zip(rows, log_probs.tolist(), greedy.tolist(), strict=True):
                answers[i] = tuple(answer)
        return answers

    def loglikelihood_rolling(
        self, requests: "Sequence[Instance]", disable_tqdm: bool = False
    ) -> list[float]:
        windows, of = [], []
        for i, request in enumerate(requests):
            for window in get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0], add_special_tokens=False),
                prefix_token=self._prefix,
                max_seq_len=self.max_length,
                context_len=1,
            ):
                windows.append((None, *make_disjoint_window(window)))
                of.append(i)
        totals = [0.0] * len(requests)
        answers = self._loglikelihood_tokens(windows, disable_tqdm=disable_tqdm)
        for i, (log_prob, _) in zip(of, answers, strict=True):
            totals[i] += log_prob
        return totals

    def generate_until(
        self, requests: "Sequence[Instance]", disable_tqdm: bool = False
    ) -> list[str]:
        contexts = [self.tok_encode(request.args[0]) or [self._prefix] for request in requests]
        seeds = torch.tensor([_seed_of(context) for context in contexts])
        asked: Counter[tuple[int, ...]] = Counter()
        draws = []
        for context, seed in zip(contexts, seeds.tolist(), strict=True):
            draws.append(self.seed * SEEDS_APART + seed + asked[tuple(context)])
            asked[tuple(context)] += 1
        decodings = [
            Decoding.from_request(normalize_gen_kwargs(request.args[1], self.max_gen_toks))
            for request in requests
        ]
        for decoding in decodings:
            if decoding.max_new_tokens >= self.max_length:
                raise ValueError(
                    f"{decoding.max_new_tokens} new tokens leave no room for a context in "
                    f"max_length={self.max_length}: ask for fewer with max_gen_toks"
                )
        contexts = _cut(contexts, [self.max_length - d.max_new_tokens for d in decodings])
        written = [""] * len(requests)
        # The harness stops at the tokenizer's end of text too, whatever the model's config has.
        end = self.tokenizer.eos_token_id
        ends = [] if end is None else [EosTokenCriteria(end)]
        for decoding in dict.fromkeys(decodings):
            alike = [i for i, other in enumerate(decodings) if other == decoding]
            lengths = [len(context) for context in contexts]
            for rows in self._batches(alike, lengths, disable_tqdm, "generating"):
                until = Until(self.tokenizer, decoding.until)
                out = generate(
                    self.bridge,
                    [contexts[i] for i in rows],
                    self.patch,
                    max_new_tokens=decoding.max_new_tokens,
                    **decoding.sampling(),
                    stopping_criteria=[*ends, until],
                    callback=until.next_step,
                    seed=[draws[i] for i in rows],
                    text_seeds=seeds[rows],
                )
                assert out.texts is not None
                for i, text in zip(rows, out.texts, strict=True):
                    written[i] = postprocess_generated_text(text, list(decoding.until), None)
        return written

    def _batches(
        self, rows: Iterable[int], lengths: Sequence[int], disable_tqdm: bool, doing: str
    ) -> Iterator[list[int]]:
        """Rows in batches of about the same length, the longest texts first."""
        order = sorted(rows, key=lambda row: -lengths[row])
        starts = range(0, len(order), self.batch_size)
        for start in progress_bar(starts, shown=not disable_tqdm, unit="batch", desc=doing):
            yield order[start : start + self.batch_size]


def _prepended(bridge: TransformerBridge) -> int | None:
    """The token that TransformerLens puts before a text if asked to.

    It puts none there if the tokenizer had no special token, although it then gives it one.
    """
    with_bos, without = (
        bridge.to_tokens("a", prepend_bos=bos, move_to_device=False)[0].tolist()
        for bos in (True, False)
    )
    return with_bos[0] if len(with_bos) > len(without) else None


def _first_named(tokenizer: Any, *names: str) -> int:
    for name in names:
        if (token := getattr(tokenizer, name, None)) is not None:
            return int(token)
    raise ValueError(
        "the harness needs a token that begins or ends a text: give the bridge a tokenizer that "
        "names BOS or EOS"
    )


def _seed_of(tokens: Tokens) -> int:
    """A seed that depends only on the tokens."""
    return zlib.crc32(str(list(tokens)).encode())


def _cut(contexts: list[list[int]], rooms: Sequence[int]) -> list[list[int]]:
    """Contexts, cut at the beginning if they are too long, with a warning."""
    n_cut = sum(len(context) > room for context, room in zip(contexts, rooms, strict=True))
    if n_cut:
        warn_user(
            f"{n_cut} of {len(contexts)} contexts are too long for the model: they lose their "
            "beginning, as the harness prescribes",
        )
    return [context[-room:] for context, room in zip(contexts, rooms, strict=True)]
