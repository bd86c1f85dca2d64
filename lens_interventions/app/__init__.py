"""The explorer: a page on this machine to read a model, patch it and watch it write.

`explore` starts a server for a bridge. The page holds the whole state and sends it with every
request (`state`). The server answers with events (`server`, `worker`). Each panel has a module that
makes the views, which the library's own figures draw. The library computes all numbers.

It may import every package except the command line. Starlette and uvicorn come with the extra
`app`, so only the command line and `lens_interventions.explore` import this package. The page is a
template and, in `static/`, ES modules that a browser reads as they are.
"""
