"""Running experiments: units of work, measured by any free process, and kept on disk.

Nothing here knows what is measured. It imports `materials`, `measures` and `model`, no experiment
and nothing that experiments share. The storage of runs goes into `run_directory`, the distribution
of units into `work_units`, the contents of a finished run into `results`.
"""
