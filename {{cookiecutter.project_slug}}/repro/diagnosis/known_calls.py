"""Names of the calls that the search for unseeded randomness knows, by what they do.

All are full names, as a file's imports make them: numpy.random.rand of np.random.rand.
"""


def _words(text: str) -> set[str]:
    return set(text.split())


def _names(module: str, names: str) -> set[str]:
    return {f"{module}.{name}" for name in names.split()}


# What torchrun tells each process; the bits do not depend on it (repro/training/parallel.py).
PROCESS_VARIABLES = {"RANK", "LOCAL_RANK", "WORLD_SIZE"}

# Draws from global generators. Functions of random and numpy.random draw, but for NO_DRAW.
GLOBAL_MODULES = ("random", "numpy.random")
NO_DRAW = _words("seed default_rng getstate setstate get_state set_state")
DRAWS = _names("torch", "rand randn randint randperm rand_like randn_like randint_like normal")
DRAWS |= _names("torch", "bernoulli multinomial poisson utils.data.random_split")
DRAWING_METHODS = _words(
    """uniform_ normal_ random_ bernoulli_ exponential_ cauchy_ geometric_ log_normal_ orthogonal_
    sparse_ trunc_normal_ xavier_uniform_ xavier_normal_ kaiming_uniform_ kaiming_normal_"""
)
DRAWING_LAYERS = (
    "Linear",
    "Bilinear",
    "Conv",
    "Embedding",
    "LSTM",
    "GRU",
    "RNN",
    "Transformer",
    "MultiheadAttention",
)

# Generators. Unseeded, torch.Generator starts at 67280421310721, whatever the config's seed is; the
# others start at a number of the operating system's.
GENERATORS = {"torch.Generator", "random.Random", "numpy.random.RandomState"}
SEEDED_BY_ARGUMENT = _names("random", "Random seed") | _names(
    "numpy.random", "default_rng RandomState SeedSequence seed MT19937 PCG64 PCG64DXSM Philox SFC64"
)
SEEDING_METHODS = ("manual_seed", "seed", "set_state", "setstate")
SEEDERS = _words("seed manual_seed manual_seed_all set_seed derive_seed seed_generators")
SEEDERS |= {"seed_everything"}

# Numbers of the operating system's, and numbers that are others in every process.
FROM_SYSTEM = _words("os.urandom os.getrandom uuid.uuid1 uuid.uuid4 random.SystemRandom")
FROM_SYSTEM |= _names("torch", "seed random.seed cuda.seed cuda.seed_all default_generator.seed")
FROM_SYSTEM |= _names("secrets", "SystemRandom choice randbelow randbits")
FROM_SYSTEM |= _names("secrets", "token_bytes token_hex token_urlsafe")
PER_PROCESS = _words("os.getpid os.getppid uuid.getnode builtins.id builtins.hash")
PER_PROCESS |= _names("datetime", "datetime.now datetime.utcnow datetime.today date.today")

# Order: what lists files, what iterates, what passes an order on, and what does not depend on it.
LISTINGS = _names("os", "listdir scandir walk fwalk") | _names("glob", "glob iglob")
LISTING_METHODS = {"glob", "rglob", "iterdir"}
ITERATING = _names("builtins", "list tuple enumerate zip iter map filter dict.fromkeys")
PASSING_ON = _names("builtins", "list tuple iter map filter reversed")
PASSING_ON |= _names("itertools", "chain chain.from_iterable islice")
SORTING = {"builtins.sorted", "numpy.sort", "natsort.natsorted"}
ORDER_FREE = SORTING | _names("builtins", "set frozenset len min max sum any all bool")

# What switches the whole process.
SWITCHES = _names(
    "torch",
    """set_default_dtype set_default_device set_default_tensor_type set_float32_matmul_precision
    set_num_threads set_num_interop_threads set_flush_denormal use_deterministic_algorithms
    set_deterministic_debug_mode""",
)
BACKENDS = "torch.backends."  # their attributes are switches, too


def is_seed(name: str | None) -> bool:
    """Say whether a parameter or variable of this name holds a seed."""
    return f"_{name}".lower().endswith(("_seed", "_random_state"))
