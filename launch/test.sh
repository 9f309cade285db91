#!/usr/bin/env bash
# Installs what the tests need and runs them; further arguments go to pytest.
source "$(dirname "$0")/common.sh"
setup_venv test
exec .venv/bin/python -m pytest -n 2 "$@"
