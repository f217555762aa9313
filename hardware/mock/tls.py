"""Stands for MicroPython's module `tls`: CPython's `ssl` has the same classes and numbers."""

from ssl import CERT_REQUIRED, PROTOCOL_TLS_CLIENT, SSLContext

__all__ = ["CERT_REQUIRED", "PROTOCOL_TLS_CLIENT", "SSLContext"]
