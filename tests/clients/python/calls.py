"""Makes single calls with the package in clients/python, blocking and by asyncio, and prints both answers as JSON."""

from __future__ import annotations

import argparse
import asyncio
import json

from informerd import AsyncClient, CallError, Client, Objects, Target, Verdicts, WaitTarget


def shown(what: str, answer: object) -> object:
    """What of an answer does not depend on when it was given."""
    if isinstance(answer, CallError):
        return {"error": type(answer).__name__, "reason": answer.reason}
    if what == "get":
        item, freshness = answer
        return {"name": item.content()["metadata"]["name"], "uid": item.uid, "state": freshness.state.name}
    if what == "list":
        return [str(it.key) for it in answer]
    if what == "readiness":
        verdict, _ = answer
        return {"state": verdict.state.name, "parts": verdict.parts_total, "holds": verdict.holds("Available")}
    if what == "readiness-list":
        return {str(it.target): it.state.name for it in answer}
    return {
        "outcome": answer.outcome.name,
        "states": [it.state.name for it in answer.verdicts],
        "missing": [it.reason for it in answer.missing],
    }


def call(client: Client | AsyncClient, args: argparse.Namespace) -> object:
    """The answer, or what there is to await for it."""
    if args.what == "get":
        return client.get(Objects(args.resource, args.namespace, args.name))
    if args.what == "list":
        return client.list(Objects(args.resource, args.namespace))
    if args.what == "readiness":
        return client.get_readiness(Target(args.resource, args.name, args.namespace))
    if args.what == "readiness-list":
        return client.list(Verdicts(args.resource, args.namespace))
    target = WaitTarget(
        Target(args.resource, args.name, args.namespace), uid=args.uid, min_generation=args.min_generation
    )
    return client.wait_readiness(target, wait_for=args.wait_for, timeout=args.timeout)


def blocking(args: argparse.Namespace) -> object:
    with Client(args.server) as client:
        try:
            return shown(args.what, call(client, args))
        except CallError as error:
            return shown(args.what, error)


async def with_asyncio(args: argparse.Namespace) -> object:
    async with AsyncClient(args.server) as client:
        try:
            return shown(args.what, await call(client, args))
        except CallError as error:
            return shown(args.what, error)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--server", required=True)
    arguments.add_argument("--namespace", default="")
    arguments.add_argument("--uid", default="")
    arguments.add_argument("--min-generation", type=int, default=0)
    arguments.add_argument("--wait-for", default="ready")
    arguments.add_argument("--timeout", type=float, default=30)
    arguments.add_argument("what", choices=["get", "list", "readiness", "readiness-list", "wait"])
    arguments.add_argument("resource")
    arguments.add_argument("name", nargs="?", default="")
    args = arguments.parse_args()
    print(json.dumps([blocking(args), asyncio.run(with_asyncio(args))]))


if __name__ == "__main__":
    main()
