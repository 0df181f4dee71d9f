"""What every other package stands on: errors, commands, files, text, digests, progress.

Nothing here imports more than the standard library, except `progress`, which imports rich when it
draws a bar on a terminal.
"""
