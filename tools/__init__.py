"""The `fogline` command and what it is made of."""
