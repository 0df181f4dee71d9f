"""A run and its folder: settings, conditions, context, trace, logs, pictures."""
