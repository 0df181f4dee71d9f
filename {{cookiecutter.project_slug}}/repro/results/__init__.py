"""Claims, what was recorded of them, verdicts, and what is published."""
