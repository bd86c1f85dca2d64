"""The texts that experiments run on: written for this library, or read from the user's files.

- `templates`: sentences whose next word was said before, in a crossed design
- `prompts`: beginnings of many kinds of text, to sample from
- `passages`: a sentence or two, to be repeated until the model goes on by itself
- `prose`: short texts, to measure the loss on
- `python_reference`: the Python language reference, which CPython carries
- `read_texts`, `dataset_column`: the user's own texts
"""

from .own import Prompt as Prompt
from .own import Template as Template
from .own import passages as passages
from .own import prompts as prompts
from .own import prose as prose
from .own import templates as templates
from .texts import Document as Document
from .texts import dataset_column as dataset_column
from .texts import python_reference as python_reference
from .texts import read_texts as read_texts
