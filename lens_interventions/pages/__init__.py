"""HTML pages: the demo of the post's findings, and the report on finished runs.

It may import every package except the command line and the explorer. Markup goes into Jinja2
templates, which escape their values: `base.html` frames all pages, templates beside it are shared,
and a page's own are in `demo/` or `report/`. Python computes the text and numbers that a template
shows.
"""
