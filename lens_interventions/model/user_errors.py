"""Errors of the library whose message tells the user what to do."""

# RuntimeError includes NotImplementedError. An IndexError is a fault, whose traceback is needed.
USER_ERRORS = (ValueError, TypeError, RuntimeError, OSError)
