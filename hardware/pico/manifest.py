# ruff: noqa: F821 - MicroPython's makemanifest.py runs this with these names
"""What is frozen into the image of `make pico`."""

freeze("$(PORT_DIR)/modules")
include("$(MPY_DIR)/extmod/asyncio")
