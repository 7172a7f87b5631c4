"""Measures the agent beside the raw limits of the same machine, in one run: `./postern bench`.

A number says little on a machine that nobody knows. So each stands beside what the hardware, or a bare
script that does the least that could be called the same work, reaches here and now, and what counts is the
ratio. A bench never fails on timing: it says what was met and what was not.

`figures` are the results and how they are shown; `wires` are a tty and an ear at the broker, `rig` runs the
programs, and `bare` and `publisher` are what the agent is compared with. Each other module is one
group of measures: a function that takes a folder and sizes and yields figures.
"""
