"""Services: one vendor a file, each behind the few verbs that this project needs of it."""
