"""Publish what was recorded: one archive, and in it the forms that venues ask for."""
