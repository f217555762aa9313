"""Boards on the bench: found, flashed, provisioned, labelled, watched, and put on the chain."""
