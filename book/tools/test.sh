#!/bin/sh
# Every check of the project, the cheap ones first; what `make test` runs inside the environment.
set -e

step() { printf '\n=== %s  (%s)\n' "$1" "$(date +%H:%M:%S)"; }

step 'A browser is installed'
python -m book.tools.chromium

step 'Notebooks are stored without outputs'
nbstripout --verify --keep-id --extra-keys 'metadata.papermill cell.metadata.papermill cell.metadata.execution' notebooks/*.ipynb

step 'Style'
ruff check --quiet .
ruff format --check --quiet .
lint-imports --no-cache # the floors of the house: CONTRIBUTING.md

step 'Unit tests'
export OMP_NUM_THREADS=1 # as many processes as cores
python -m pytest -q --durations 15 --ignore tests/browser --ignore tests/cuda --ignore tests/two_runs -n "${CORES:-2}" --dist loadfile

step 'The library and the notebooks on CUDA, emulated where there is none'
python -m pytest -q tests/cuda -n "${CORES:-2}" --dist loadfile

# every chapter runs in the book below; these run twice, the longer ones (training, suites, steering) in `make test-long`
export RUN_TWICE='01_menagerie 04a_uniqueness 05_features 06a_steering_panel 90_scoreboard'
step 'Notebooks with their default parameters'
python -m book.tools.warm_kernels python -m pytest -q --nbval-lax -n "${CORES:-2}" --dist loadfile $(printf 'notebooks/%s.ipynb ' $RUN_TWICE)
unset OMP_NUM_THREADS

step 'The book, every chapter with its defaults'
export HTML=build/check/html # the reader's own book in build/html stays
make --no-print-directory book PROFILE=check

step 'Both runs of the notebooks gave the same numbers'
python -m pytest -q tests/two_runs

# what fails twice fails; what a crowded machine's browser was late for once is listed as RERUN
step 'The rendered book in a browser'
python -m pytest -q -rR --reruns 1 --durations 10 tests/browser -n "${CORES:-2}" --dist loadfile
