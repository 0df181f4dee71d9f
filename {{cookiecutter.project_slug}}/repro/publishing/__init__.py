"""Publish what was recorded: one archive, and in it the forms that venues ask for.

What a result is, and whether it came out again, is decided in results/. Here nothing of that is
changed: all is made from the commit, the recorded runs and what the author states, so that the same
commit and runs give the same bytes. anonymity/ takes out who made it, reviewers/ writes the papers.
"""
