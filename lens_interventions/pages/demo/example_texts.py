"""The texts that the demo, the notebooks and the pictures of the documentation read."""

# The abstract of Brown et al. 2020, "Language Models are Few-Shot Learners" (arXiv:2005.14165),
# up to the sentence that the post shows.
ABSTRACT = (
    "Recent work has demonstrated substantial gains on many NLP tasks and benchmarks by "
    "pre-training on a large corpus of text followed by fine-tuning on a specific task. While "
    "typically task-agnostic in architecture, this method still requires task-specific fine-tuning "
    "datasets of thousands or tens of thousands of examples. By contrast, humans can generally "
    "perform a new language task from only a few examples or from simple instructions - something "
    "which current NLP systems still largely struggle to do. Here we show that scaling up language "
    "models greatly improves task-agnostic, few-shot performance, sometimes even reaching "
    "competitiveness with prior state-of-the-art fine-tuning approaches."
)
ABSTRACT_END = (
    " Specifically, we train GPT-3, an autoregressive language model with 175 billion parameters, "
    "10x more than any previous non-sparse language model, and test its performance in the "
    "few-shot setting."
)

# The post's own example; the word that should be copied follows it.
PLASMA = (
    "Sometimes, when people say plasma, they mean a state of matter. Other times, when people say"
)
PLASMA_WORD = " plasma"
PLASMA_FIRST = "Sometimes, when people say plasma, they mean"

# Written for this library: nothing in it can be guessed the first time.
REPEATED = "The grey heron counted eleven brass buttons before the violin caught fire."
ROUNDS = 6

# Greedy decoding of the embedded model falls into a loop after this.
LOOPING = "The once-blue skies of the planet Earth began to fade,"
LOOPING_TOKENS = 80
