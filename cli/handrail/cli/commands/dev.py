"""`handrail dev`: a whole installation on this machine, until Ctrl-C."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path

from google.protobuf.json_format import MessageToDict

from handrail.cli.credentials import UserFolder
from handrail.cli.dev.package import Package, load_package, merged
from handrail.cli.dev.people import APPROVERS, OPERATOR, VIEWER
from handrail.cli.dev.processes import StartError
from handrail.cli.dev.stack import DevOptions, DevStack
from handrail.cli.dev.steps import Steps
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.output import Output
from handrail.cli.parser import similar
from handrail.mesh.bus import BusSettings
from handrail.mesh.permissions import ADMIN
from handrail.mesh.telemetry import logs

_POLL_SECONDS = 0.2
_NATS_PORT = 4222
_PORT = 7070
_CONSOLE_PORT = 7080


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.description = (
        "Start a nats-server, a coordinator, visibility, the console and, if asked, agents on this machine; print "
        "addresses and tokens; run until Ctrl-C. Dead processes are restarted; the broker gets the permissions that "
        "stored templates ask for."
    )
    parser.add_argument(
        "--agents",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="package with AGENTS, TEMPLATES and MESSAGES: its templates are activated, its agents started; repeatable",
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="keep all data in this folder [default: a temporary one]"
    )
    parser.add_argument(
        "--nats-port",
        type=_port,
        default=_NATS_PORT,
        metavar="PORT",
        help="broker port [default 4222]; 0 takes a free one",
    )
    parser.add_argument(
        "--port", type=_port, default=_PORT, metavar="PORT", help="gRPC port [default 7070]; 0 takes a free one"
    )
    parser.add_argument(
        "--console-port",
        type=_port,
        default=_CONSOLE_PORT,
        metavar="PORT",
        help="port of the console [default 7080]; 0 takes a free one",
    )
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="AGENT",
        help="do not start this agent of the packages: you run it yourself; repeatable",
    )
    parser.add_argument("--quiet", action="store_true", help="do not print a line for each step of a flow")
    parser.add_argument("--json", action="store_true", help="print one line of JSON when ready, for programs")
    parser.set_defaults(run=_run)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f'"{text}" must be a port from 0 to 65535')
    return int(text)


def _run(arguments: argparse.Namespace) -> Exit:
    # Of other people's code, only what needs a look.
    logs.configure(logging.WARNING)
    logging.getLogger("handrail.cli.dev").setLevel(logging.INFO)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.set())
    try:
        package = merged(load_package(name) for name in arguments.agents)
        with _folder(arguments.data) as folder:
            options = DevOptions(
                folder=folder,
                package=package,
                nats_port=arguments.nats_port,
                port=arguments.port,
                console_port=arguments.console_port if find_spec("uvicorn") is not None else None,
                without=_without(package, arguments.without),
            )
            with DevStack(options) as stack:
                stack.start()
                stack.start_agents()
                _announce(stack, as_json=arguments.json)
                with _steps(stack) if not (arguments.json or arguments.quiet) else nullcontext():
                    while not stopping.wait(_POLL_SECONDS):
                        stack.poll()
    except StartError as error:
        raise CommandError(str(error)) from None
    return Exit.OK


def _without(package: Package, names: Sequence[str]) -> frozenset[str]:
    for name in names:
        if name not in package.agents:
            raise StartError(f'there is no agent "{name}"{similar(name, package.agents)}')
    return frozenset(names)


@contextmanager
def _steps(stack: DevStack) -> Iterator[None]:
    """Prints what happens in flows while the block runs."""
    settings = BusSettings(servers=(stack.nats_url,), name=ADMIN)
    steps = Steps(stack.broker.credentials.user(ADMIN).login(settings), Output("table").text)
    steps.start()
    try:
        yield
    finally:
        steps.stop()


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="handrail-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _announce(stack: DevStack, *, as_json: bool) -> None:
    people = stack.people
    if as_json:
        Output("json").line(
            {
                "nats": stack.nats_url,
                "address": stack.address,
                "console": _console(stack),
                "visibility": stack.index,
                "data": str(stack.folder),
                "tokens": people.tokens,
                "token_files": {person: str(people.token_file(person)) for person in people.tokens},
                "credentials": str(stack.broker.credentials.path),
                "pids": {child.name: child.pid for child in stack.children},
            }
        )
        return
    print("\n".join(_lines(stack)), flush=True)


def _lines(stack: DevStack) -> Iterator[str]:
    people = stack.people
    yield f"broker       {stack.nats_url}   user {ADMIN}, {_secret(stack.broker.credentials.user(ADMIN))}"
    yield f"coordinator  {stack.address}   (gRPC, with reflection)"
    yield "             both on this machine only, without TLS: nobody else can reach them"
    if stack.console_address:
        yield f"console      {_console(stack)}   (sign in as anybody below by a click)"
    else:
        yield "console      is not installed (handrail[console])"
    yield f"data         {stack.folder}   (logs in logs/)"
    if not stack.options.visibility:
        yield "visibility   is not installed (handrail[visibility]): lists need --scan"
    if stack.agents:
        yield f"agents       {', '.join(stack.agents)}"
    for name in sorted(stack.options.without):
        login = _login(stack.broker.credentials.user(name))
        yield f"without      {name}; to run it yourself:"
        yield f"  HANDRAIL_NATS={stack.nats_url} {login} handrail agent run {stack.package.agents[name]}"
    yield ""
    yield "Tokens:"
    for person in people.tokens:
        yield f"  {person:5} {', '.join(sorted(people.roles(person))):18} {people.token_file(person)}"
    yield ""
    yield "Try, in another terminal:"
    if shutil.which("handrail") is None:
        yield f"  export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"
    yield f"  export HANDRAIL_ADDRESS={stack.address} HANDRAIL_TOKEN_FILE={people.token_file(OPERATOR)}"
    for template in stack.package.templates:
        yield f"  handrail flow start {template.name} --data {_example(stack, template.name)}"
    yield "  handrail flow list"
    yield "  handrail flow watch FLOW"
    yield "  handrail approval list"
    yield f"  handrail approval approve APPROVAL --token-file {people.token_file(APPROVERS[0])}"
    yield "  handrail template list"
    yield f'  grpcurl -plaintext -H "authorization: Bearer $(cat {people.token_file(VIEWER)})" {stack.address} list'
    yield ""
    yield "Ctrl-C stops everything."


def _console(stack: DevStack) -> str:
    """The console's address for a browser; empty if there is none."""
    return f"http://{stack.console_address}" if stack.console_address else ""


def _secret(user: UserFolder) -> str:
    return f"nkey in {user.nkey}" if user.nkey.exists() else f"password in {user.password}"


def _login(user: UserFolder) -> str:
    return " ".join(f"{name}={shlex.quote(value)}" for name, value in user.environment().items())


def _example(stack: DevStack, flow_type: str) -> str:
    example = stack.package.examples.get(flow_type)
    return "'{…}'" if example is None else shlex.quote(json.dumps(MessageToDict(example), ensure_ascii=False))
