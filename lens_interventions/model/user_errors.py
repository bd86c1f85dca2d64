"""Errors of the library whose message tells the user what to do."""

# RuntimeError includes NotImplementedError. The commands and the explorer check positions before,
# so an IndexError there is a fault, whose traceback is needed.
USER_ERRORS = (ValueError, TypeError, RuntimeError, OSError)
