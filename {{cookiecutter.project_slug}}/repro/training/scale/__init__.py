"""Models over several machines: PyTorch's own engines, and checkpoints in parts."""
