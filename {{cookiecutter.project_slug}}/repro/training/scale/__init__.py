"""PyTorch's own engines for several processes, DDP and FSDP2, and checkpoints of sharded models.

Promises the same bits again with the same number of processes, after a kill as well. A project that
was made with scale=one has none of this.
"""
