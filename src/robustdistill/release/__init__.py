"""What is handed over: the exported file, its model card, the report of a run."""
