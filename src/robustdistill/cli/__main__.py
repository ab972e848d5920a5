"""`python -m robustdistill.cli` is the command `robustdistill`."""

from robustdistill.cli import main

if __name__ == "__main__":
    main()
