# The template's commands. `make` alone lists them. What they need goes into .build/: `tools` to
# generate projects and to make locks, `venv` is the environment of a project with the defaults.

PYTHON ?= python3
ARGS ?=
# What make demo learns: images, text or table.
TASK ?= images
# Tests at a time.
WORKERS ?= 2

# Nothing leaks in from outside.
export PYTHONNOUSERSITE ?= 1
unexport PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV
export PIP_USER = 0
# cookiecutter copies every file of the template's folder, caches too: write none, take old ones away.
export PYTHONDONTWRITEBYTECODE ?= 1
# ARGS is for the command here, not for the projects' own make that it may start.
unexport ARGS
MAKEOVERRIDES :=

tools := .build/tools
checks := .build/checks
trackers := .build/trackers
runner := .build/runner
frameworks := .build/frameworks
venv := .build/venv
project := {{cookiecutter.project_slug}}
starts := $(notdir $(wildcard templates/tasks/*))
pytest := $(runner)/bin/python -m pytest -o tmp_path_retention_policy=failed \
	-o console_output_style=classic --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo tasks test test-system test-long lint lock results recordings bench bench-peers venv tidy

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(tools)/ready tidy ## generate a project, train it on real data, verify it: ends with the verdict; TASK=text
	@$(tools)/bin/python tools/demo.py $(TASK)

# Two tests at a time, the longest first; how far they are and what failed is said as they run.
# With ARGS one after the other, in this process, to be looked at.
test: what := tests/unit tests/project
test-system: what := tests/system
test-long: what := tests
test test-system: only := not long
test-long: only := long

test: venv $(checks)/ready $(trackers)/ready $(runner)/ready ## run the template's tests; ARGS='tests/project/test_data.py -k cifar'
test-system: venv $(checks)/ready $(trackers)/ready $(runner)/ready ## run those that need Docker, Slurm, servers or a browser
test test-system:
	@$(pytest) -m "$(only)" $(if $(ARGS),,-n $(WORKERS)) $(if $(filter tests/%,$(ARGS)),,$(what)) $(ARGS)

test-long: venv $(checks)/ready $(trackers)/ready $(runner)/ready $(frameworks)/ready ## run those that take minutes each
	@$(pytest) -m "$(only)" $(if $(filter tests/%,$(ARGS)),,$(what)) $(ARGS)

lint: venv ## check style and types, of the template and of the project
	@$(venv)/bin/python -m ruff check --cache-dir .build/ruff .
	@$(venv)/bin/python -m ruff format --check --cache-dir .build/ruff .
	@$(venv)/bin/python -m mypy --strict --ignore-missing-imports --cache-dir .build/mypy \
		local_extensions.py tools hooks
	@cd '$(project)' && ../$(venv)/bin/python -m mypy --cache-dir ../.build/mypy-project bootstrap.py repro
	@rm -rf .build/lint && for task in $(starts); do \
		$(tools)/bin/cookiecutter --no-input --default-config --output-dir .build/lint . \
			task=$$task project_slug=$$task 2> /dev/null && \
		(cd .build/lint/$$task && ../../../$(venv)/bin/python -m mypy --cache-dir ../../mypy-$$task) || exit 1; \
	done

lock: $(tools)/ready ## write all locks anew (Python 3.11); ARGS=--upgrade renews the versions
	@$(tools)/bin/python tools/lock.py $(ARGS)

tasks: $(tools)/ready ## write the placeholders of the files in templates/tasks/
	@$(tools)/bin/python tools/tasks.py

results: venv ## measure the results that a project carries
	@$(tools)/bin/python tools/results.py $(ARGS)

recordings: venv ## record the pictures of the README anew
	@$(tools)/bin/python tools/recordings.py

# All is measured before a ratio that misses its bound ends it (benchmarks/bounds.toml).
bench: venv ## measure overhead and costs, each beside a baseline of the same minute
	@$(venv)/bin/python benchmarks/start.py .build/project/*
	@$(projects_to_bench)
	@$(venv)/bin/python benchmarks/costs.py .build/project/*
	@failed=; for task in $(starts); do \
		echo "$$task:" && $(venv)/bin/python benchmarks/throughput.py .build/bench/$$task \
			--task $$task $(ARGS) || failed=yes; \
	done; test -z "$$failed"

bench-peers: venv $(frameworks)/ready ## measure the loop beside plain PyTorch, Lightning, accelerate, Trainer; ARGS=--write
	@$(projects_to_bench)
	@$(frameworks)/bin/python benchmarks/peers.py images=.build/bench/images text=.build/bench/text \
		--checkpoints $(ARGS)

# A project of each task, with the defaults.
projects_to_bench = rm -rf .build/bench && for task in $(starts); do \
		$(tools)/bin/cookiecutter --no-input --default-config --output-dir .build/bench . \
			task=$$task project_slug=$$task 2> /dev/null || exit 1; \
	done

# The tools: made again when their lock is newer. bootstrap.py finds a Python that fits, and says in
# one line what to do where there is none (or the machine is none that the lock fits).
$(tools)/ready: requirements-tools.lock
	@python=$$($(PYTHON) -I '$(project)/bootstrap.py' --check) || exit 2; \
	echo "Installing the template's tools into $(tools)"; \
	rm -rf $(tools) && "$$python" -I -m venv $(tools) && \
	$(tools)/bin/python -I -m pip install -qq --disable-pip-version-check \
		--require-hashes --no-deps --only-binary=:all: -r requirements-tools.lock && touch $@

# What the tests check projects with. docopt, which cffconvert needs, and jsonpath-rw, which mlcroissant
# needs, have no wheel.
$(checks)/ready: requirements-checks.lock $(tools)/ready
	@echo "Installing what projects are checked with into $(checks)"
	@rm -rf $(checks) && $(tools)/bin/python -I -m venv $(checks) && \
	$(checks)/bin/python -I -m pip install -qq --disable-pip-version-check \
		--require-hashes --no-deps --only-binary=:all: --no-binary=docopt,jsonpath-rw \
		-r requirements-checks.lock && touch $@

# The trackers' packages, which only their tests need, what runs the tests, and the frameworks of
# docs/examples, which only tests that take long need: environments that add theirs to `venv`, whose versions they share. So projects are tested with the packages of their lock
# alone.
$(trackers)/ready: $(foreach name,tensorboard mlflow wandb,templates/locks/$(name).lock)
$(runner)/ready: requirements-tests.lock
$(frameworks)/ready: requirements-frameworks.lock
$(trackers)/ready $(runner)/ready $(frameworks)/ready: templates/locks/images.lock templates/locks/dev.lock | venv
	@echo "Installing what tests need into $(@D)"
	@rm -rf $(@D) && $(venv)/bin/python -I -m venv $(@D)
	@$(venv)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$($(@D)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/venv.pth"
	@$(@D)/bin/python -m pip install -qq --disable-pip-version-check \
		--require-hashes --no-deps --only-binary=:all: \
		$(foreach lock,$(filter-out %/images.lock %/dev.lock,$^),--requirement $(lock)) && touch $@

# The environment of a generated project, shared by demo, tests and results.
venv: $(tools)/ready tidy
	@rm -rf .build/project
	@$(tools)/bin/cookiecutter --no-input --default-config --output-dir .build/project . 2> /dev/null
	@$(MAKE) --no-print-directory -C .build/project/* setup VENV='$(CURDIR)/$(venv)' PYTHON='$(PYTHON)'

tidy:
	@find '$(project)' \( -name __pycache__ -o -name '.*_cache' \) -prune -exec rm -rf {} +
