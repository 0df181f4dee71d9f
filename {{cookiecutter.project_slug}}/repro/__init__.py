"""The kit: what makes a training reproducible, and proves it.

It knows no model and no data set, and imports nothing of `experiment/`. Read in this order:
environment, seeding, determinism, sampling, parallel, checkpoint, provenance, record, verify.
"""
