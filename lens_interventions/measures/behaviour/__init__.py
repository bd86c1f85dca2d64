"""Measures of texts: repetition, loops, copying, repeated surprises, the surprisal of tokens.

Everything here is a pure function of token ids or of numbers beside them, and imports no other room
of the library. A new measure is a new module.

Sampled texts of unequal length are one tensor, padded on the right, with the number of real tokens
of each row in `lengths`. Everything after that, such as an end-of-text token, is ignored. Pass only
the sampled tokens, because repetitions within the prompt would count too.
"""

from .copying import copyable as copyable
from .copying import induction_targets as induction_targets
from .copying import pair_distance as pair_distance
from .diversity import distinct_n as distinct_n
from .diversity import rep_n as rep_n
from .loops import MIN_LENGTH as MIN_LENGTH
from .loops import MIN_ROUNDS as MIN_ROUNDS
from .loops import Loop as Loop
from .loops import ending_loop as ending_loop
from .loops import ending_loops as ending_loops
from .loops import find_loops as find_loops
from .repeats import surprise_distance as surprise_distance
from .surprisal import Bins as Bins
from .surprisal import bin_by as bin_by
from .surprisal import bin_totals as bin_totals
from .surprisal import unigram_surprisal as unigram_surprisal
from .survival import Survival as Survival
from .survival import loop_free_survival as loop_free_survival
