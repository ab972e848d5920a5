"""One step of published code beside one of ours: the same weights, the same images, the same first point of the attack.

    python -m benchmarks.parity                                        # what is compared, at which commit
    python -m benchmarks.parity --run-their-code                       # clones, compares, prints the table
    python -m benchmarks.parity --run-their-code --source DIR ard iad  # with the clones in DIR/OWNER/NAME

**This runs code of other people on your machine**, so it does nothing without `--run-their-code`. What is read is
fixed: a file at a commit, with the SHA-256 that stands in `cases/`; another content is refused. Of a file only the
named definitions and the body of the one training loop are compiled, never the script itself, with a short list of
builtins (no import, no files). That keeps accidents out; it is no sandbox for code that means harm.

Nothing of that code is part of this project: it is fetched by you, under its own licences, and read where it lies.
docs/parity.md holds the table that this prints, and for each difference which side is right and why. Not part of CI.
"""
