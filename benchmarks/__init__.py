"""Programs that measure.

``python -m benchmarks`` compares slim-actors with bare slim-bindings and other systems (``--help``): `cases`
says what is measured, `measures` how, and `systems` on what. The other programs look at one thing each, and
say how to run them.
"""
