"""``python -m distill``: the command line."""

from distill.cli import main

if __name__ == "__main__":
    main()
