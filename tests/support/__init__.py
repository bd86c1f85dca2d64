import jaxtyping

from . import type_checker as type_checker  # jaxtyping looks for it here, by name

# Before a module of this package imports the library: jaxtyping's import hook finds the decorator
# by its name.
jaxtyping.jaxtyped = type_checker.jaxtyped
