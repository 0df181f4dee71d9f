"""What a project claims, what was recorded of it, and whether that came out again.

From configs/claims.yaml to results/ and REPRODUCE.md (record), and from these to a verdict
(verify). Here are also the page that shows both, the doctor's checklist, and what the author states
about the work. What others get of it, in one file, is made in publishing/.
"""
