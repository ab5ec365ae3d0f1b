"""`python -m tfkd.cli` is `tfkd`."""

from tfkd.cli import main

main()
