"""Profiles the process that starts with this folder in PYTHONPATH, for `bench.workers`: one file for each process.

Python imports a module of this name at its start. So supervisor and workers need not know anything of it.
"""

import atexit
import cProfile
import os
import sys

_FOLDER = os.environ.get("MAILRIDER_BENCH_PROFILES")

if _FOLDER:
    _PROFILE = cProfile.Profile()

    def _write(folder: str) -> None:
        _PROFILE.disable()
        role = "worker" if "-P" in sys.orig_argv else "supervisor"
        _PROFILE.dump_stats(os.path.join(folder, f"{role}-{os.getpid()}.profile"))

    atexit.register(_write, _FOLDER)
    _PROFILE.enable()
