"""Patched models as other people's evaluations take them.

Teacher forcing and `generate` answer what an evaluation asks for: nothing here runs a model. A
package of theirs is an extra, imported when it is first needed.
"""
