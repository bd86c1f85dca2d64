"""The explorer: a page on this machine that reads a model, patches it and watches it write.

`explore` starts a server for a bridge. The page holds the whole state and sends it with every
request (`state`); the server answers with events (`server`, `worker`), whose views are made by a
module for each panel and drawn by the library's own figures. Nothing is computed here that the
library does not compute.

It may import every package but the command line. Starlette and uvicorn are installed with the extra
`app`, so that nothing but the command line and `lens_interventions.explore` imports it. The page is
a template and, in `static/`, ES modules that a browser reads as they are.
"""
