"""Running experiments: units of work, measured by any free process, and kept on disk.

Nothing here knows what is measured: it imports no experiment and nothing of `design/`, and of the
rest of the library only `model/` and `measures/`. The storage of runs goes into `run_directory`,
the distribution of units into `work_units`, the contents of a finished run into `results`.
"""
