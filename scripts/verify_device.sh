#!/usr/bin/env bash
# Everything that shows whether a device is right, and how quick it is, in one report. What it does and takes:
#   scripts/verify_device.sh --help
# PYTHON chooses the interpreter; HAL need not be installed in it.
exec "${PYTHON:-python3}" "$(dirname "${BASH_SOURCE[0]}")/../tests/bench/verify.py" "$@"
