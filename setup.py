"""Builds the C extension of the proof of work. Everything else is in pyproject.toml."""

from __future__ import annotations

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

NATIVE = Path("fog_node/pow/native")


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
            "fog_node.pow._pow",
            sources=sorted(path.as_posix() for path in NATIVE.glob("*.c")),
            depends=sorted(path.as_posix() for path in NATIVE.glob("*.h")),
            extra_compile_args=["-std=c11", "-O3", "-Wall", "-Wextra", "-pedantic"],
        )
    ],
)
