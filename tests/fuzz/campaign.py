"""Runs the harnesses under atheris, each in a process of its own: what `make fuzz` starts.

    python tests/fuzz/campaign.py --seconds 60 --only proof --jobs 2

Atheris follows which lines of our parsers an input reaches (libFuzzer's coverage guidance), and
mutates with `mutations.mutate` and libFuzzer's own by turns. A finding stops its harness; the input
and the traceback are in the folder that is named at the end. Exit code 1 where there was one.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import logging
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MAX_INPUT_BYTES = 16 * 1024
# libFuzzer ends an input that takes longer, or a process that grows beyond this.
INPUT_TIMEOUT_S = 10
RSS_LIMIT_MIB = 1024
# Beyond its own time for starting up, and for atheris to instrument what is imported.
GRACE_S = 120
SKIPPED_EXIT = 3


def main() -> int:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=20, help="for each harness (20)")
    parser.add_argument("--only", action="append", default=[], help="harnesses by name; all")
    parser.add_argument("--jobs", type=int, default=1, help="harnesses at a time (1)")
    parser.add_argument("--seed", type=int, default=None, help="of the mutations; random")
    parser.add_argument("--findings", type=Path, default=None, help="folder; a new one")
    parser.add_argument("--list", action="store_true", help="name the harnesses and end")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        fuzz(
            arguments.child, arguments.corpus, arguments.findings, arguments.seconds, arguments.seed
        )
        return 0
    names = harness_names()
    if arguments.list:
        print("\n".join(names))
        return 0
    if unknown := set(arguments.only) - set(names):
        parser.error(f"--only {min(unknown)}: is no harness; --list names them")
    try:
        import atheris  # noqa: F401 - only whether it is there
    except ImportError:
        print("make fuzz needs atheris: .venv/bin/pip install -c requirements.txt -e '.[fuzz]'")
        return SKIPPED_EXIT
    findings = arguments.findings or Path(tempfile.mkdtemp(prefix="fogline-findings-"))
    seed = (
        arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1, 2**31)
    )
    print(f"seed {seed}; findings go to {findings}")
    chosen = arguments.only or names
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        jobs = [pool.submit(run, name, findings, arguments.seconds, seed) for name in chosen]
        failed = sum(not job.result() for job in jobs)
    print(f"{len(chosen)} harnesses, {failed} with findings")
    return 1 if failed else 0


def harness_names() -> list[str]:
    """In a process of its own: the children instrument what they import."""
    sys.path[:0] = [str(HERE), str(HERE.parent), str(ROOT)]
    from harnesses import HARNESSES

    return [harness.name for harness in HARNESSES]


def run(name: str, findings: Path, seconds: int, seed: int) -> bool:
    """One harness; returns whether it found nothing."""
    folder = findings / name
    folder.mkdir(parents=True, exist_ok=True)
    # libFuzzer ends its process without further ado: what the harness leaves is removed here.
    with (
        tempfile.TemporaryDirectory(prefix="fogline-corpus-") as corpus,
        tempfile.TemporaryDirectory(prefix="fogline-fuzz-") as scratch,
    ):
        command = [
            sys.executable, str(Path(__file__).resolve()), "--child", name, "--corpus", corpus,
            "--findings", str(folder), "--seconds", str(seconds), "--seed", str(seed),
        ]  # fmt: skip
        began = time.monotonic()
        try:
            ended = subprocess.run(
                command, cwd=ROOT, env={**os.environ, "TMPDIR": scratch}, capture_output=True,
                timeout=seconds + GRACE_S, check=False,
            )  # fmt: skip
            output, code = (ended.stdout + ended.stderr).decode(errors="replace"), ended.returncode
        except subprocess.TimeoutExpired as error:
            output, code = (error.stderr or b"").decode(errors="replace"), -1
    runs = re.findall(r"#(\d+)", output)
    coverage = re.findall(r"cov: (\d+)", output)
    took = f"{time.monotonic() - began:.0f} s"
    about = f"{runs[-1] if runs else 0} inputs, coverage {coverage[-1] if coverage else 0}, {took}"
    if code == 0:
        print(f"{name}: nothing found ({about})", flush=True)
        if not any(folder.iterdir()):
            folder.rmdir()
        return True
    (folder / "output").write_text(output)
    reason = next((line for line in output.splitlines() if "FindingError" in line), f"code {code}")
    print(f"{name}: FOUND: {reason[:200]} ({about}); see {folder}", flush=True)
    return False


def fuzz(name: str, corpus: Path, findings: Path, seconds: int, seed: int) -> None:
    """Fuzz in this process; libFuzzer ends it."""
    sys.path[:0] = [str(HERE), str(HERE.parent), str(ROOT)]
    import atheris

    with atheris.instrument_imports(
        include=["fog_node.protocol", "fog_node.network", "fog_node.config", "fog_node.gateway",
                 "fog_node.api", "cloud.recording"],
        enable_loader_override=False,
    ):  # fmt: skip
        from harnesses import BY_NAME
    from mutations import mutate

    logging.getLogger("fog_node").setLevel(logging.CRITICAL)
    harness = BY_NAME[name]
    for data in harness.corpus:
        (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)

    def by_structure(data: bytes, most: int, number: int) -> bytes:
        chance = random.Random(number)
        if chance.random() < 0.4:
            return bytes(atheris.Mutate(data, most))
        return mutate(data, harness.corpus, chance)[:most]

    def one_input(data: bytes) -> None:
        harness.check(bytes(data))

    atheris.Setup(
        [
            sys.argv[0], f"-max_total_time={seconds}", f"-seed={seed}",
            f"-max_len={MAX_INPUT_BYTES}", f"-timeout={INPUT_TIMEOUT_S}",
            f"-rss_limit_mb={RSS_LIMIT_MIB}", f"-artifact_prefix={findings}{os.sep}", str(corpus),
        ],
        one_input,
        custom_mutator=by_structure,
    )  # fmt: skip
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
