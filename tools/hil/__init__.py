"""Boards, real and emulated, behind one protocol; see README.md."""
