"""Train with PyTorch's own engines, DDP and FSDP2, for what outgrows the fixed-order sum.

Promises the same bits for the same number of processes in the same places: on the next run, after a
crash, with any number of data workers. Another number of processes gives other bits, so it is a
condition. Only projects that were made with scale=many have this package, and the rest of the kit
imports it where `training.parallel` is not `shards`.
"""
