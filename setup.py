"""Builds the C extensions. Everything else is in pyproject.toml."""

from __future__ import annotations

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

# Where each extension's C is.
NATIVE = {
    "fog_node.pow._pow": Path("fog_node/pow/native"),
    "fog_node.protocol._native": Path("fog_node/protocol/native"),
}


class BuildExtension(build_ext):
    """Says what to do when the compiler fails. There is no installation without the extension."""

    def build_extension(self, ext: Extension) -> None:
        """Compile and link, or stop with the remedy."""
        try:
            super().build_extension(ext)
        except (CompileError, LinkError) as error:
            message = (
                f"{ext.name} did not build ({error}). It needs a C11 compiler and Python's headers:"
                " apt-get install gcc libc6-dev python3-dev (or the -dev package of your Python)."
            )
            raise type(error)(message) from error


setup(
    cmdclass={"build_ext": BuildExtension},
    ext_modules=[
        Extension(
            name,
            sources=sorted(path.as_posix() for path in folder.glob("*.c")),
            depends=sorted(path.as_posix() for path in folder.glob("*.h")),
            extra_compile_args=["-std=c11", "-O3", "-Wall", "-Wextra", "-pedantic"],
        )
        for name, folder in NATIVE.items()
    ],
)
