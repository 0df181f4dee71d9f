"""What every other package stands on: errors, commands, files, text, digests, progress.

Imports the standard library alone, but for `progress`, which draws with rich.
"""
