"""What ``endurance.py`` puts an engine under, and what it looks at.

``stream``: the frames. ``work``: the threads that run them and what comes back. ``windows``: a run in
parts, and what grows over them. ``times``, ``resources``: latency, and what the process holds. ``rate``:
the flags of clean frames. ``record``: the outcome.
"""
