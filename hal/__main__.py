"""`python -m hal` is the same as `hal`."""

from hal.cli import main

main()
