"""Test networks of real processes, from a manifest and a seed."""
