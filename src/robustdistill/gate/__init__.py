"""What is decided: evidence, statistics, policy, verdict. Pure functions of files and numbers, without torch."""
