from . import type_checker as type_checker  # jaxtyping looks for it here, by name
