"""Write what reviewers ask for: an artifact appendix, a checklist, CODECHECK's file."""
