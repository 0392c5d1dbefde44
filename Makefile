# Everything is in make.py; this passes on the task and what was set, as in: make chapters SCALE=gpu ONLY=03
PYTHON ?= python3
TASKS := help book test setup chapters lint serve pdf lab bench mutants colab clean repository
.PHONY: $(TASKS)
.NOTPARALLEL:
$(TASKS):
	@$(PYTHON) make.py $@ $(MAKEOVERRIDES)
