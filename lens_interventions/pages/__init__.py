"""What writes HTML: the demo of the post's findings, and the report on finished runs.

It may import every package but the command line. Markup goes into Jinja2 templates, which escape
what they are given: `base.html` frames all pages, a template beside it is shared by several, and a
page's own are in `demo/` or `report/`. Python works out the text and numbers that a template shows.
"""
