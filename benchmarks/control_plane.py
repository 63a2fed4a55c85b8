"""The control plane with ten thousand connections: a real API server with fake nodes, a real Postgres, real processes.

`CONNECTIONS=`, `RUNS=` and `RATE=` (runs a second) make it smaller. It needs what the cluster tests need: Debian, root, Go.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Any

from control_plane_cluster import Api, api, bring_up, machine, side_by_side, take_down
from control_plane_platform import Platform, Reading, platform
from control_plane_player import Player
from penstock_operator.ids import AttemptNumber, ConnectionName, ConnectionUid, DefinitionName, Namespace, RunId
from penstock_operator.launchers import AttemptLaunch
from penstock_operator.launchers.jobs import JobSettings, desired_job
from penstock_operator.runs.run_spec import RunSpec
from penstock_operator.scheduling.due import schedule_due
from penstock_sdk.manifest import Manifest

CONNECTIONS = int(os.environ.get("CONNECTIONS", "10000"))
RUNS = int(os.environ.get("RUNS", "1334"))  # of the steady part: two minutes of 667
RATE = float(os.environ.get("RATE", CONNECTIONS / 900))  # a second: each connection every 15 minutes
TENANTS, RAW, BURST, HOLD = 50, 1000, min(2000, CONNECTIONS), 10.0
CUSTOM = "/apis/penstock.io/v1alpha1"
ROWS: list[tuple[str, str, str]] = []


def say(figure: str, value: str, limit: str = "") -> None:
    """Keep a row of the table, and show it at once."""
    ROWS.append((figure, value, limit))
    print(f"{time.strftime('%H:%M:%S')} load {os.getloadavg()[0]:4.1f}  {figure}: {value}", flush=True)


def connection(number: int) -> dict[str, Any]:
    """Return one of many connections; when it is due is set in the registry."""
    spec = {
        "connector": {"name": "faker", "method": "generate", "version": "^0.1"},
        "config": {"records": 10},
        "streams": [{"name": "people", "mode": "incremental"}],
        "schedule": "0 0 1 1 *",
    }
    meta = {"name": f"connection-{number}", "namespace": f"team-{number % TENANTS}"}
    return {"apiVersion": "penstock.io/v1alpha1", "kind": "TenantConnection", "metadata": meta, "spec": spec}


async def raw_jobs(server: Api, manifest: dict[str, Any]) -> float:
    """Return how many Jobs a second eight callers create, each suspended, so that nothing but the creation counts."""
    await server.call("POST", "/api/v1/namespaces", {"metadata": {"name": "raw"}})

    spec = RunSpec.parse({"connector": {"name": "faker", "method": "generate"}})

    def job(number: int) -> dict[str, Any]:
        launch = AttemptLaunch(
            RunId(f"raw{number}"),
            AttemptNumber(1),
            f"raw-{number}",
            None,
            Namespace("raw"),
            ConnectionName("raw"),
            ConnectionUid("uid"),
            DefinitionName("d"),
            "image",
            spec,
            "512Mi",
            Manifest.model_validate(manifest),
        )
        made = desired_job(launch, JobSettings("http://api"))
        made["metadata"].pop("ownerReferences")
        made["spec"]["suspend"] = True
        return made

    began = time.monotonic()
    jobs = (job(number) for number in range(RAW))
    path = "/apis/batch/v1/namespaces/raw/jobs"
    await side_by_side(8, (partial(server.call, "POST", path, body) for body in jobs))
    rate = RAW / (time.monotonic() - began)
    await server.call("DELETE", "/api/v1/namespaces/raw")
    return rate


async def create_connections(server: Api) -> None:
    """Make the tenants and their connections."""
    for number in range(TENANTS):
        await server.call("POST", "/api/v1/namespaces", {"metadata": {"name": f"team-{number}"}})

    async def create(number: int) -> None:
        path = f"{CUSTOM}/namespaces/team-{number % TENANTS}/tenantconnections"
        await server.call("POST", path, connection(number))

    await side_by_side(16, (partial(create, number) for number in range(CONNECTIONS)))


async def first_start(bench: Platform, empty: Reading) -> None:
    """Start on resources that the registry has never seen."""
    began, before = time.monotonic(), await bench.server.writes()
    bench.start("operate")
    await bench.until(
        "SELECT count(*) FROM penstock.tenant_connections WHERE ready AND next_run_at IS NOT NULL", CONNECTIONS
    )
    known = time.monotonic() - began
    await bench.quiet()
    settled, after = time.monotonic() - began, await bench.reading("operate")
    writes = (await bench.server.writes()) - before
    say("first start: all scheduled", f"{known:.1f} s", "one Python thread, and the lists")
    say("first start: all statuses written", f"{settled:.1f} s", "the API server's writes, and the same thread")
    say("first start: CPU of operate", f"{after.cpu:.1f} s")
    statuses = writes["PATCH tenantconnections/status"]
    say("first start: status writes a connection", f"{statuses / CONNECTIONS:.2f}", "one is needed")
    say("memory: operate with 0 connections", f"{empty.rss / 2**20:.0f} MiB", "imports")
    say(
        "memory: operate with all, after the start", f"{after.rss / 2**20:.0f} MiB", "the peak of the first lists stays"
    )
    say("memory a connection", f"{(after.rss - empty.rss) / CONNECTIONS / 1024:.1f} KiB")


async def restart(bench: Platform) -> None:
    """Start again with runs that are due, as after a hand-over."""
    await bench.until("SELECT (count(*) = 0)::int AS count FROM penstock.outbox", 1)
    await bench.quiet()
    await bench.stop("operate")
    due = await bench.make_due(min(200, CONNECTIONS), 0.0)
    before = await bench.server.writes()
    began, wall = time.monotonic(), time.time()
    bench.start("operate")
    await bench.until_jobs(due, 120)
    times = sorted(bench.player.jobs[run] - wall for run in await bench.runs_of(due))
    say("start to the first Job of a due run", f"{times[0]:.1f} s", "imports and the lease")
    say("start to the last of 200 due runs' Jobs", f"{times[-1]:.1f} s", "asked: within 30 s")
    await bench.quiet()
    after, writes = await bench.reading("operate"), (await bench.server.writes()) - before
    say("start to all in order", f"{time.monotonic() - began:.1f} s", "the lists, and kopf's events of them")
    say("restart: CPU of operate until then", f"{after.cpu:.1f} s")
    say("restart: status writes without a reason", f"{max(0, writes['PATCH tenantconnections/status'] - 400)}")


async def steady(bench: Platform) -> None:
    """Let runs come due evenly, as many a minute as ten thousand connections each 15 minutes have."""
    before, began = await bench.server.writes(), await bench.readings()
    due = await bench.make_due(RUNS, RUNS / RATE)
    await bench.until_finished(due, RUNS / RATE + 240)
    ended, writes = await bench.readings(), (await bench.server.writes()) - before
    delays = sorted(await bench.delays(due))
    points = quantiles(delays, n=100)
    seconds = max(each.at for each in ended.values()) - min(each.at for each in began.values())
    say(f"due to Job at {RATE * 60:.0f} runs a minute: p50", f"{points[49]:.2f} s", "the loop's 0.5 s, twice")
    say(f"due to Job at {RATE * 60:.0f} runs a minute: p99", f"{points[98]:.2f} s", "the machine's two cores")
    for step, taken in (await bench.steps(due)).items():
        found = quantiles(taken, n=100)
        say(f"of which {step}: p50, p99", f"{found[49]:.2f}, {found[98]:.2f} s")
    for name, mine in (
        (
            "operate",
            ("POST jobs", "DELETE jobs", "PATCH tenantconnections/status", "PATCH connectordefinitions/status"),
        ),
        ("everybody", tuple(writes)),
    ):
        count = sum(writes[each] for each in mine) / RUNS
        say(
            f"API writes a run: {name}",
            f"{count:.1f}",
            ", ".join(f"{k} {v / RUNS:.1f}" for k, v in writes.most_common(9)),
        )
    for name, each in ended.items():
        say(f"CPU at that rate: {name}", f"{(each.cpu - began[name].cpu) / seconds * 100:.0f} %", "of one core")


async def burst(bench: Platform, raw: float) -> None:
    """Let many runs come due at once: how fast do their Jobs come?"""
    began = await bench.readings()
    due = await bench.make_due(BURST, 0.0)
    await bench.until_jobs(due, 300)
    ended = await bench.readings()
    delays = sorted(await bench.delays(due))
    rate = BURST / delays[-1]
    say(f"Jobs a minute, {BURST} due at once", f"{rate * 60:.0f}", f"{rate / raw:.2f} of what 8 callers create")
    seconds = ended["operate"].at - began["operate"].at
    for name, each in ended.items():
        say(f"CPU in the burst: {name}", f"{(each.cpu - began[name].cpu) / seconds * 100:.0f} %", "of one core")
    await bench.until_finished(due, 600)


async def idle(bench: Platform) -> None:
    """Measure what is used when nothing is to be done, and what a sweep of all takes then."""
    await bench.quiet()
    began = await bench.reading("operate")
    await asyncio.sleep(20)
    rested = await bench.reading("operate")
    share = (rested.cpu - began.cpu) / (rested.at - began.at)
    swept = rested if rested.sweeps > began.sweeps else await bench.next_sweep(rested)
    before = rested if swept is not rested else began
    say("idle CPU of operate", f"{share * 100:.1f} %", "two polls a second of the registry, and the watch")
    say(
        "resync of all: time",
        f"{swept.sweep_seconds - before.sweep_seconds:.1f} s",
        "lists of 500; one read of the registry each",
    )
    cpu = swept.cpu - before.cpu - share * (swept.at - before.at)
    say("resync of all: CPU of operate", f"{cpu:.1f} s", "JSON of the lists")
    say("memory: operate at the end", f"{swept.rss / 2**20:.0f} MiB")


async def claims(bench: Platform) -> None:
    """Measure how many due connections become runs in a second, without anything else at work."""
    await bench.stop("operate")
    for claimants in (1, 4):
        due = await bench.make_due(min(3000, CONNECTIONS), 0.0)
        began = time.monotonic()
        await asyncio.gather(*(_claim_all(bench) for _ in range(claimants)))
        rate = len(due) / (time.monotonic() - began)
        say(f"claims a second, {claimants} at once", f"{rate:.0f}", "statements for each, in one transaction of 50")
        await bench.forget_runs(due)


async def _claim_all(bench: Platform) -> None:
    while await schedule_due(bench.pool, bench.now()):
        pass


async def measure(directory: Path) -> None:
    """Measure everything, one after the other."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(api())
        bench = await stack.enter_async_context(platform(directory, server))
        bench.player = Player(server, bench.url, HOLD)
        raw = await raw_jobs(server, bench.manifest)
        say("raw: Jobs a second, 8 callers", f"{raw:.0f}", "the API server and etcd on two cores")
        bench.start("serve")
        bench.start("operate")
        await bench.quiet()
        empty = await bench.reading("operate")
        await bench.stop("operate")
        await bench.apply_definition()
        await create_connections(server)
        playing = asyncio.create_task(bench.player.run())
        playing.add_done_callback(lambda task: task.cancelled() or print("the player ended:", task.exception()))
        stack.callback(playing.cancel)
        await first_start(bench, empty)
        await steady(bench)
        await burst(bench, raw)
        await restart(bench)
        await idle(bench)
        await claims(bench)
        errors = bench.player.errors
        say("runs played", f"{len(bench.player.finished)}", f"{len(errors)} errors {errors[:1]}")


def table() -> str:
    """Return what was measured."""
    width = max(len(row[0]) for row in ROWS)
    return "\n".join(f"{figure:{width}}  {value:>12}  {limit}" for figure, value, limit in ROWS)


def main() -> None:
    """Bring everything up, measure, print, and leave nothing behind."""
    began = time.monotonic()
    machine("ready") if os.environ.get("BUILD", "1") == "1" else None
    try:
        bring_up()
        with tempfile.TemporaryDirectory(prefix="penstock-bench-") as directory:
            Path(directory).chmod(0o711)  # so that Postgres, which refuses root, finds its files here
            asyncio.run(measure(Path(directory)))
    finally:
        if os.environ.get("KEEP") != "1":
            take_down()
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"\n{CONNECTIONS} connections of {TENANTS} tenants; {time.monotonic() - began:.0f} s; load {load}\n{table()}")


if __name__ == "__main__":
    main()
