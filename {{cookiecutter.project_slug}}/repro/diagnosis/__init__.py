"""Find why results vary: compare runs, replay a step, look operations up, read the sources.

What a run holds stays as it is: a replay computes a step again and writes nothing into its folder,
but for the file that `trace-step` is asked for.
"""
