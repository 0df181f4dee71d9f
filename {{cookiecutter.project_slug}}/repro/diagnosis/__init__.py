"""Find why results vary: compare runs, replay a step, look operations up."""
