"""`fogline bench ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tools.commands.common import (
    JsonFile,
    new_app,
    numbers,
)

app = new_app("Measure, as ratios within one run.")


@app.command("simulate")
def bench_simulate(
    seeds: Annotated[int, typer.Option(min=1, help="How many runs of each part.")] = 1000,
    first: Annotated[int, typer.Option("--from", min=0, help="Seed of the first run.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, max=256, help="Processes.")] = 1,
    part: Annotated[
        str, typer.Option(help="consensus (the voting alone), nodes (whole nodes), or both.")
    ] = "both",
    replay: Annotated[
        int | None, typer.Option(min=0, help="Play this seed alone and tell all of it.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Play networks under faults, each from one seed, and count what they met.

    Example: fogline bench simulate --seeds 10000 --jobs 2
    Example: fogline bench simulate --part nodes --replay 17
    """
    from tools.bench import simulate as bench
    from tools.errors import UsageError
    from tools.simulation.many import PARTS

    parts = PARTS if part == "both" else (part,)
    if not set(parts) <= set(PARTS):
        raise UsageError(f"--part: {part!r} is none of both, {', '.join(PARTS)}")
    if replay is None:
        bench.run(seeds, first, jobs, parts, json_file)
    else:
        for each in parts:
            bench.replay(replay, each)


@app.command("pow")
def bench_pow(
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="Per kernel.")] = 2.0,
    kernel: Annotated[
        list[str] | None, typer.Option(help="A kernel to measure; repeatable. All by default.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Measure the proof-of-work kernels against a hashlib loop.

    Then each on all cores against itself on one, and how long it goes on after being cancelled.

    Example: fogline bench pow --seconds 5
    """
    from tools.bench import pow as bench

    bench.run(seconds, kernel, json_file)


@app.command("growth")
def bench_growth(
    packs: Annotated[int, typer.Option(min=500, max=100_000_000, help="Packs in all.")] = 1_000_000,
    readings: Annotated[int, typer.Option(min=1, max=100, help="Readings in each pack.")] = 10,
    per_block: Annotated[int, typer.Option(min=1, max=4096, help="Packs in each block.")] = 500,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", help="Where to keep the ledgers; by default, the temporary one."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Draw memory and disk against packs.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Measure memory, disk, start and look-ups of a chain as it grows, and catching up with it.

    Example: fogline bench growth --packs 100000 --plot growth.png --json growth.json
    """
    from tools.bench import growth as bench

    bench.run(packs, readings, per_block, directory, json_file, plot)


@app.command("inference")
def bench_inference(
    model: Annotated[Path, typer.Argument(help="A full-int8 .tflite file with one input.")],
    runs: Annotated[int, typer.Option(min=1, max=100_000, help="Inferences.")] = 200,
    json_file: JsonFile = None,
) -> None:
    """Measure the boards' interpreter against LiteRT's reference kernels in C.

    Example: fogline bench inference model/model.tflite
    """
    from tools.bench import inference as bench

    bench.run(model, runs, json_file)


@app.command("board")
def bench_board(
    model: Annotated[
        Path | None, typer.Option(help="A full-int8 .tflite file. \\[an auto-encoder]")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(help="qemu-arm or qemu-rv32; repeatable. Both by default."),
    ] = None,
    signatures: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 5,
    json_file: JsonFile = None,
) -> None:
    """Count the instructions of signing and inference on the boards that QEMU plays.

    By operator and kernel, with the heap that they take. Then the heap of a board that samples,
    signs and judges at once, against two thirds of a Pico W's. `make qemu` builds what runs there.

    Example: fogline bench board --model model/model.tflite --json board.json
    """
    from tools.bench import board as bench

    bench.run(model, target or bench.TARGETS, signatures, json_file)


@app.command("admission")
def bench_admission(
    readings: Annotated[
        str, typer.Option(help="Sizes of the packs, in readings, separated by commas.")
    ] = "1,10,60",
    packs: Annotated[int, typer.Option(min=16, max=100_000, help="Packs per round.")] = 4000,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", help="Where to keep the ledgers; by default, the temporary one."),
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Measure a gateway's way from a pack's bytes to the disk, against bare signature checks.

    Example: fogline bench admission --readings 1,10,60,80 --json admission.json
    """
    from tools.bench import admission as bench

    bench.run(numbers("--readings", readings), packs, directory, json_file)


@app.command("clients")
def bench_clients(
    clients: Annotated[int, typer.Option(min=2, help="Request nodes.")] = 1000,
    controllers: Annotated[int, typer.Option(min=1, help="Validators.")] = 5,
    processes: Annotated[int, typer.Option(min=1, help="That the request nodes run in.")] = 2,
    concurrency: Annotated[int, typer.Option(min=1, help="Sessions under way at once.")] = 100,
    json_file: JsonFile = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw a figure, PNG.")] = None,
) -> None:
    """Measure request nodes, each a member with its own certificate, against real fog nodes.

    Example: fogline bench clients --clients 1000 --controllers 5 --json clients.json
    """
    from tools.bench import clients as bench

    options = bench.Options(clients, controllers, processes, concurrency)
    bench.run(options, json_file, plot)


@app.command("network")
def bench_network(
    validators: Annotated[
        str, typer.Option(help="Numbers of validators, separated by commas.")
    ] = "1,3,5,7,9",
    readings: Annotated[
        str, typer.Option(help="Sizes of the packs, in readings, separated by commas.")
    ] = "1,10,60",
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="Of each, when settled.")] = 60.0,
    warm_up: Annotated[float, typer.Option(min=1, max=600, help="Seconds to settle.")] = 30.0,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the result, .png or .svg.")
    ] = None,
    table3: Annotated[
        bool, typer.Option("--table3", help="The operations of table 3 of the BCmfg paper instead.")
    ] = False,
    users: Annotated[
        list[int] | None, typer.Option(help="With --table3: users; repeatable. [5, 10, 15]")
    ] = None,
    payload: Annotated[
        list[int] | None,
        typer.Option(
            help="With --table3: bytes of a payload; repeatable. [500, 10000, 100000, 1000000]"
        ),
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Measure networks of real fog nodes on this machine: packs made final, against the limit.

    Packs come in over the wire between nodes, as from the gateway of a sixth node.

    Example: fogline bench network --validators 5 --readings 10 --json network.json
    """
    if table3:
        from tools.bench import table3 as paper

        paper.run(users or paper.USERS, payload or paper.PAYLOADS, json_file)
        return
    from tools.bench import network as bench

    options = bench.Options(
        numbers("--validators", validators), numbers("--readings", readings), seconds, warm_up
    )
    bench.run(options, json=json_file, plot=plot)


@app.command("explore")
def bench_explore(
    validators: Annotated[int, typer.Option(min=3, max=7, help="The liar included.")] = 3,
    rule: Annotated[str, typer.Option(help="majority or two-thirds.")] = "majority",
    rounds: Annotated[int, typer.Option(min=1, max=4, help="Rounds that are followed.")] = 1,
    blocks: Annotated[int, typer.Option(min=1, max=4, help="New blocks at most.")] = 2,
    liar: Annotated[bool, typer.Option("--liar", help="One validator signs anything.")] = False,
    restarts: Annotated[
        int, typer.Option(min=0, max=9, help="How often each honest validator loses power.")
    ] = 0,
    states: Annotated[int | None, typer.Option(min=1, help="Give up after so many.")] = None,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Bound in no way what a validator takes in.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Try all that can happen at one height of a small network, on the real voting rules.

    Example: fogline bench explore --validators 4 --rule two-thirds --rounds 2 --liar
    """
    from fog_node.ledger.explorer import Network
    from fog_node.protocol.founding import QUORUM_RULES
    from tools.bench import explore as bench
    from tools.errors import UsageError

    if rule not in QUORUM_RULES:
        raise UsageError(f"--rule: {rule!r} is none of {', '.join(QUORUM_RULES)}")
    network = Network(validators, rule, rounds, blocks, liar, restarts)
    bench.run(network, states, thorough, json_file)


@app.command("explore-rounds")
def bench_explore_rounds(
    validators: Annotated[int, typer.Option(min=3, max=7, help="Liars included.")] = 3,
    rule: Annotated[str, typer.Option(help="majority or two-thirds.")] = "majority",
    blocks: Annotated[
        str, typer.Option(help="New blocks of each round; so many rounds are followed.")
    ] = "2,2",
    liars: Annotated[int, typer.Option(min=0, help="So many sign anything.")] = 0,
    json_file: JsonFile = None,
) -> None:
    """Try all votes of a small network over several rounds, locks and restarts included.

    Example: fogline bench explore-rounds --validators 4 --rule two-thirds --blocks 1,1,1 --liars 1
    """
    from fog_node.ledger.explorer import Assembly
    from fog_node.protocol.founding import QUORUM_RULES
    from tools.bench import explore_rounds as bench
    from tools.errors import UsageError

    if rule not in QUORUM_RULES:
        raise UsageError(f"--rule: {rule!r} is none of {', '.join(QUORUM_RULES)}")
    try:
        assembly = Assembly(validators, rule, tuple(numbers("--blocks", blocks)), liars)
    except ValueError as error:
        raise UsageError(f"--{error}") from error
    bench.run(assembly, json_file)


@app.command("workers")
def bench_workers(
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Each measures both.")] = 3,
    rows: Annotated[int, typer.Option(min=800, max=1_000_000, help="Of made-up data.")] = 2000,
    images: Annotated[int, typer.Option(min=1, max=50_000, help="To load; made up.")] = 1000,
    json_file: JsonFile = None,
) -> None:
    """Measure loading and training by one of Ray's workers against two. Needs the extra `ray`.

    Example: fogline bench workers --json workers.json
    """
    from tools.bench import workers as bench

    bench.run(rounds, rows, images, json_file)
