"""`python -m svp` is the command `svp`."""

from svp.cli import main

if __name__ == "__main__":
    main()
