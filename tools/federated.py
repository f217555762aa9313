"""What `fogline federated ...` does: runs, what they leave on the chain, and their table."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from cloud.federated.chain import body_of
from cloud.federated.flower import Tls
from cloud.federated.local import Drop, begin_or_resume, run_locally, write_sites
from cloud.federated.local import serve as lead
from cloud.federated.local import take_part as join
from cloud.federated.run_files import (
    LEAST_MASKED,
    STRATEGIES,
    Masks,
    RoundRecord,
    RunFiles,
    Settings,
)
from cloud.federated.site import read_site
from cloud.train.rul_data import read_units
from fog_node.network.certificates import member_of, name_in
from fog_node.protocol.founding import Founding
from fog_node.protocol.keys import SigningKey, kid_hex
from tools.errors import UsageError
from tools.federated_choices import Choices, Parts
from tools.nodes import Nodes, credentials_in
from tools.submit import submit, wait_final

LIARS = 1
NOISY_STEPS = 5
CLIPPING, LEVELS = 8.0, 2**22
PATIENCE_S = 30.0
# Of earlier transactions a look-up goes through, at most.
MAX_SEARCHED = 10_000


def settings_of(choices: Choices, sites: int, machines: int, held_out: int = 0) -> Settings:
    """Settings of a new run.

    Args:
        choices: what was asked for.
        sites: how many are to come.
        machines: of the smallest of them.
        held_out: machines that none of them gets.

    Raises:
        UsageError: two of them do not fit together.
    """
    if choices.strategy not in STRATEGIES:
        raise UsageError(f"--strategy {choices.strategy}: give one of {', '.join(STRATEGIES)}")
    if (choices.dp_noise is None) is not (choices.dp_clip is None):
        raise UsageError("--dp-noise and --dp-clip: give both, or neither")
    if choices.dp_noise is None and choices.dp_steps is not None:
        raise UsageError("--dp-steps: wants --dp-noise and --dp-clip")
    if choices.strategy == "fedavg" and choices.liars:
        raise UsageError(
            f"--liars {choices.liars}: fedavg takes what each site sends; give --strategy "
            "trimmed-mean or krum"
        )
    liars = LIARS if choices.liars is None else choices.liars
    wanted = {"fedavg": 2, "trimmed-mean": 2 * liars + 1, "krum": 2 * liars + 3}[choices.strategy]
    if sites < wanted:
        raise UsageError(
            f"--sites {sites}: {choices.strategy} needs {wanted} for {liars} that may send anything"
        )
    masks = _masks_of(choices, sites)
    if masks is not None:
        wanted = masks.threshold
    min_sites = wanted if choices.min_sites is None else choices.min_sites
    if not 1 <= min_sites <= sites:
        raise UsageError(f"--min-sites {min_sites}: give 1 to {sites}, as there are sites")
    is_private = choices.dp_noise is not None
    return Settings(
        run=secrets.token_hex(16),
        task="rul",
        strategy=choices.strategy,
        rounds=choices.rounds,
        epochs=choices.epochs,
        seed=choices.seed,
        sites=sites,
        min_sites=min_sites,
        liars=liars,
        round_s=choices.round_s,
        masks=masks,
        held_out=held_out,
        noise=choices.dp_noise,
        clip=choices.dp_clip,
        steps=(choices.dp_steps or NOISY_STEPS) if is_private else 0,
        machines=machines if is_private else 0,
    )


def _masks_of(choices: Choices, sites: int) -> Masks | None:
    shares, threshold = choices.num_shares, choices.reconstruction_threshold
    if not choices.secure_aggregation:
        asked = {
            "--num-shares": shares,
            "--reconstruction-threshold": threshold,
            "--clipping-range": choices.clipping_range,
            "--quantization-range": choices.quantization_range,
        }
        for option, value in asked.items():
            if value is not None:
                raise UsageError(f"{option} {value}: wants --secure-aggregation")
        return None
    if choices.strategy != "fedavg":
        raise UsageError(
            f"--secure-aggregation: {choices.strategy} has to see each update, and under masks "
            "nobody does; give --strategy fedavg, or leave the masks"
        )
    if sites < LEAST_MASKED:
        raise UsageError(
            f"--secure-aggregation: of {sites} sites each would know the other's update; "
            f"{LEAST_MASKED} are needed"
        )
    shares = sites if shares is None else shares
    if shares > sites or (shares != sites and shares % 2 == 0):
        raise UsageError(
            f"--num-shares {shares}: give {sites}, one for each site, or an odd number"
        )
    threshold = shares // 2 + 1 if threshold is None else threshold
    if not shares < 2 * threshold < 2 * shares:
        raise UsageError(
            f"--reconstruction-threshold {threshold}: give more than half of {shares} shares, and "
            "less than all"
        )
    levels = choices.quantization_range or LEVELS
    if levels & (levels - 1):
        raise UsageError(f"--quantization-range {levels}: is no power of 2")
    return Masks(shares, threshold, choices.clipping_range or CLIPPING, levels)


def run(
    data: Path,
    out: Path,
    choices: Choices,
    parts: Parts,
    drops: Sequence[str],
    told: Callable[[RoundRecord, int], None],
    *,
    resume: bool,
) -> dict[str, Any]:
    """Learn on this machine, with a process for each site.

    Raises:
        UsageError, CloudError.
    """
    try:
        parsed = [Drop.of(text) for text in drops]
    except ValueError as error:
        raise UsageError(f"--drop {error}") from error
    if unknown := [one.site for one in parsed if one.site > parts.sites]:
        raise UsageError(f"--drop {unknown[0]}@...: there are {parts.sites} sites")
    files = RunFiles(out)
    sites = write_sites(data, out / "sites", parts.sites, parts.split, choices.seed, parts.hold_out)
    machines = min(len(read_units(path).ends) for path in sites)
    settings = begin_or_resume(
        files, settings_of(choices, parts.sites, machines, parts.hold_out), resume=resume
    )
    run_locally(files, sites, parsed, lambda record: told(record, settings.rounds))
    return summary(files)


def serve(
    out: Path,
    choices: Choices,
    listen: str,
    member: Path,
    certificates: Sequence[Path],
    machines: int | None,
    told: Callable[[RoundRecord, int], None],
    *,
    resume: bool,
) -> dict[str, Any]:
    """Lead a run whose sites are other members' fog nodes.

    Args:
        out: directory of the run.
        choices: what was asked for.
        listen: HOST:PORT.
        member: the trainer's directory, with tls.crt, tls.key and founding.cbor.
        certificates: of the members whose fog nodes may take part; a site has its member's name.
        machines: of the smallest site; with noise.
        told: is given each round that is over.
        resume: whether it goes on.

    Raises:
        UsageError, CloudError.
    """
    _check_address("--listen", listen)
    if choices.dp_noise is not None and machines is None:
        raise UsageError("--dp-noise: give --dp-machines, how many machines the smallest site has")
    files = RunFiles(out)
    settings = begin_or_resume(
        files, settings_of(choices, len(certificates), machines or 0), resume=resume
    )
    credentials = credentials_in(member)
    authority = x509.load_der_x509_certificate(credentials.authority)
    keys = out / "keys"
    keys.mkdir(exist_ok=True)
    sites = {}
    for number, path in enumerate(certificates):
        name, kid, public_key = _site_in(path, authority)
        written = keys / f"{number}.pub"
        written.write_bytes(public_key)
        sites[name] = (kid, written.resolve())
    if len(sites) != len(certificates):
        raise UsageError("--site: two certificates are of one member")
    tls = Tls(
        _authority_file(keys, authority),
        credentials.certificate.resolve(),
        credentials.key.resolve(),
    )
    lead(files, listen, tls, sites, lambda record: told(record, settings.rounds))
    return summary(files)


def take_part(
    data: Path,
    superlink: str,
    member: Path,
    directory: Path,
    least_noise: float | None,
    *,
    only_masked: bool,
) -> None:
    """Have this member's fog node take part, until it is stopped.

    Args:
        data: the site's own machines.
        superlink: HOST:PORT of the trainer's.
        member: this member's directory, with tls.crt, tls.key and founding.cbor.
        directory: for Flower's files and its log.
        least_noise: with less the site refuses to learn; None for none.
        only_masked: whether it refuses to give an update that is not under masks.

    Raises:
        UsageError, CloudError.
    """
    _check_address("--trainer", superlink)
    units = read_site(data)
    credentials = credentials_in(member)
    authority = x509.load_der_x509_certificate(credentials.authority)
    name, _, _ = _site_in(credentials.certificate, authority)
    private = serialization.load_pem_private_key(credentials.key.read_bytes(), None)
    directory.mkdir(parents=True, exist_ok=True)
    key = directory.resolve() / "key"
    key.touch(mode=0o600)
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    )
    config: dict[str, str | float] = {"site": name, "data": str(units.path.resolve())}
    if only_masked:
        config["only-masked"] = True
    if least_noise is not None:
        config["least-noise"] = least_noise
    tls = Tls(_authority_file(directory, authority))
    join(directory, superlink, tls, key, config)


def _site_in(path: Path, authority: x509.Certificate) -> tuple[str, str, bytes]:
    """Name and key id of the member that a certificate names, and its key for Flower."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        certificate.verify_directly_issued_by(authority)
        kid = member_of(certificate)
    except (OSError, ValueError, TypeError, InvalidSignature) as error:
        raise UsageError(f"{path}: is no certificate of this consortium's authority") from error
    name = name_in(path)
    if kid is None or not name:
        raise UsageError(f"{path}: names no member; have the authority issue one for it")
    public_key = certificate.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return name, kid_hex(kid), public_key


def _authority_file(directory: Path, authority: x509.Certificate) -> Path:
    path = directory.resolve() / "authority.crt"
    path.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    return path


def _check_address(option: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise UsageError(f"{option} {address}: give HOST:PORT")


def summary(files: RunFiles) -> dict[str, Any]:
    """What a run has come to."""
    settings, records = files.settings(), files.rounds()
    private = {}
    if settings.noise is not None and records:
        last = records[-1]
        private = {
            "privacy": f"epsilon {last.epsilon:.3g} at delta {last.delta:g}, for each machine's "
            "whole record",
            "epsilon": last.epsilon,
            "delta": last.delta,
            "not_covered": "means and deviations of each site's sensors, disclosed once",
        }
    return {
        "run": settings.run,
        "strategy": settings.strategy,
        "directory": str(files.directory),
        **private,
        "rounds": [
            {
                "round": one.round,
                "sites": len(one.sites),
                "absent": ", ".join(one.absent),
                "rmse_before": one.rmse,
                "model": one.after[:16],
            }
            for one in records
        ],
    }


async def record(
    nodes: Nodes, founding: Founding, key: SigningKey, directory: Path
) -> dict[str, Any]:
    """Put a run's rounds on the chain, those that are not there yet.

    Args:
        nodes: whom to send them to.
        founding: of the consortium.
        key: of a member who is trainer.
        directory: of the run.

    Raises:
        CloudError: a round is not whole. ClientError: no node answers, or it refuses.
    """
    files = RunFiles(directory)
    settings = files.settings()
    bodies = [body_of(settings, one) for one in files.rounds()]
    rows, waiting = [], []
    async with nodes.client(PATIENCE_S) as client:
        known: dict[int, str] = {}
        seen = 0
        async for view in client.all_transactions(kind="training-round"):
            if view.signer == kid_hex(key.kid) and view.body["run"] == settings.run:
                known[int(view.body["round"])] = view.id
            seen += 1
            if len(known) == len(bodies) or seen == MAX_SEARCHED:
                break
        for body in bodies:
            if body.round not in known:
                transaction = await submit(client, key, body, founding, wait=False)
                waiting.append(transaction)
                known[body.round] = transaction.id.hex()
            rows.append({"round": body.round, "transaction": known[body.round]})
        for transaction in waiting:
            await wait_final(client, transaction)
    return {"run": settings.run, "sent": len(waiting), "rounds": rows}
