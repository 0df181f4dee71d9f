"""Name what marks a profile: its variable, and how the portable one computes on the CPU.

The table of a profile's variables is in environment/profile.py, its kernels are in
training/cpu_kernels.py.
"""

# Names the profile that wrote the variables (image, conda, make): they may be changed, a user's
# own may not.
MARKER = "REPRO_PROFILE"

# The portable profile's kernels in words: a condition of its runs.
PORTABLE_KERNELS = (
    "oneDNN for float32 products from 2^19 multiplications, 2^20 each in a batch or in pieces of "
    "128 terms; LSTM unfused"
)
