"""Texts for experiments, written for this library or read from the user's files.

Nothing here knows a model, and nothing else of the library is imported. A new text of the library's
own goes into `bundled`, a new file format into `readers`, a new name for settings into `corpora`.

- `templates`: sentences whose next word occurred before, in a crossed design
- `prompts`: beginnings of many kinds of text, to sample from
- `passages`: a sentence or two, to be repeated until the model continues by itself
- `prose`: short texts, to measure the loss on
- `last_words`: requests for a sentence that ends in a given word
- `python_reference`: the Python language reference, which comes with CPython
- `docstring_prose`: prose from the docstrings of installed packages, named by `docstring_versions`
- `read_texts`, `dataset_column`: the user's own texts
"""

from .bundled import Template as Template
from .bundled import passages as passages
from .bundled import prompts as prompts
from .bundled import prose as prose
from .bundled import templates as templates
from .docstrings import docstring_prose as docstring_prose
from .docstrings import docstring_versions as docstring_versions
from .document import Document as Document
from .document import Prompt as Prompt
from .last_words import LastWord as LastWord
from .last_words import last_words as last_words
from .readers import dataset_column as dataset_column
from .readers import python_reference as python_reference
from .readers import read_texts as read_texts
