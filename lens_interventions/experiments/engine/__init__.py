"""Running experiments: units of work, kept on disk as they finish, measured by whoever is free.

Nothing here knows what is measured: it imports no experiment and nothing of `design/`, and of the
rest of the library only `model/` and `measures/`. How runs are stored goes into `run_directory`,
how units are shared out into `work_units`, what a finished run holds into `results`.
"""
