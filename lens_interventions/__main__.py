"""`python -m lens_interventions` is the `lens-interventions` command."""

from .cli import main

main()
