"""Patched models for other people's evaluations.

Teacher forcing and `generate` answer the requests of an evaluation, so nothing here runs a model.
The evaluation's package is an extra, imported when it is first needed.
"""
