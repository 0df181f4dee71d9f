"""Files of data: downloaded, prepared once, listed with their SHA-256, and checked.

What a file means is the author's to say, in experiment/data.py. Here it has a name, a size and a
digest; large data are samples in tar files, each with its own.
"""
