"""Peers over mutual TLS: who is connected, what they may send, how much of it."""
