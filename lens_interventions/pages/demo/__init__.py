"""The demo page: the post's findings, measured on a model, with figures.

- `SECTIONS`: a function for each finding, from `Readings` (which hold the bridge) to a `Section`
- `build_page`: run them and write one HTML file that opens offline
"""

from .page import build_page as build_page
from .sections import SECTIONS as SECTIONS
