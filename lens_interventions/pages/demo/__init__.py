"""The demo page: the post's findings, measured on a model, with figures.

A finding is a module with one function, from a `MeasuredModel` to a `Section` of conditions, text
and figures. `page.py` lists them in the order of the page. Readings that several of them share go
into `measured_model.py`, and the texts that they read into `example_texts.py`. It may import the
same packages as `pages`, but not the report.
"""

from .page import SECTIONS as SECTIONS
from .page import build_page as build_page
