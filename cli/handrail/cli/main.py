"""The `handrail` command: finds the subcommand, runs it, and reports an error in one line."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import pairwise

from handrail.cli.completion import ASKED, complete
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.parser import Parser
from handrail.cli.version import VERSION
from handrail.mesh.printable import clean_lines, json_text

_COMMANDS = {
    "new": "create a project to start from",
    "dev": "start everything on this machine, for development",
    "coordinator": "run a replica of the coordinator",
    "agent": "run an agent",
    "visibility": "keep an index of flows in a database, and an archive of their messages",
    "console": "serve pages that show people what flows do",
    "archive": "verify an archive, show what it holds, export it as Parquet",
    "flow": "start flows, inspect them, intervene",
    "failure": "list what fails, the most frequent first",
    "approval": "list and answer pending approvals",
    "delegation": "pass a role on to another person for a time",
    "act": "list and confirm what needs two persons",
    "template": "check, store and activate flow templates",
    "contracts": "check contracts, and show whom a change affects",
    "quarantine": "inspect messages that broke their contract (the dead-letter queue)",
    "admin": "set up the streams on the broker",
    "nats-permissions": "generate the broker's users and permissions from the templates",
    "certificates": "create certificates for servers, signed by an authority of your own",
    "verify": "check from the streams alone that the promises were kept",
    "health": "check whether a broker, a coordinator, visibility or an agent works",
    "login": "log in at an identity provider",
    "logout": "forget a login",
    "whoami": "show who the coordinator takes you for",
    "context": "keep coordinators under names, and call one of them by default",
    "completion": "print the script with which a shell completes command lines",
    "token": "create a bearer token, for development and small installations",
}
"""Each has a module in `commands`, imported only when called, because the others take time to load."""

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""Output can't be written, through no fault of the command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code; --help and --version end the process."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if ASKED in os.environ:
        complete(parser)
    as_json = _wants_json(words)
    try:
        parsed = _parsed(words)
        run: Callable[[argparse.Namespace], Exit] = parsed.run
        return _flushed(run(parsed))
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone, as in `handrail flow list | head`; nothing is left to report.
        _drop_output()
        return Exit.OK
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        _drop_output()
        text = f"can't write: {error.strerror}; free some space, or write the output elsewhere"
        return _complain(CommandError(text), as_json=as_json)
    except Exception as error:
        complaint = _complaint(error, words)
        if complaint is None:
            raise
        return _complain(complaint, as_json=as_json)


def _complaint(error: Exception, words: Sequence[str]) -> CommandError | None:
    from handrail.cli.complaint import complaint

    return complaint(error, command="".join(words[:1]))


def parser(filled: Sequence[str] = tuple(_COMMANDS)) -> Parser:
    """Returns the parser of the command line, with the arguments of the `filled` commands."""
    whole = Parser(
        prog="handrail",
        description="Agents walk on their own. The handrail is there when they stumble.",
        epilog="Exit codes: 0 done, 1 refused or failed, 2 wrong arguments, 3 no answer, 4 not found, 5 no permission, "
        "6 waits for a second person.",
    )
    whole.add_argument("--version", action="version", version=f"handrail {VERSION}")
    commands = whole.add_subparsers(metavar="COMMAND", required=True)
    for name, text in _COMMANDS.items():
        command = commands.add_parser(name, help=text)
        if name in filled:
            import_module(f"handrail.cli.commands.{name.replace('-', '_')}").fill(command)
    return whole


def _parsed(words: list[str]) -> argparse.Namespace:
    try:
        parsed, rest = parser(words[:1]).parse_known_args(words)
        if rest:
            innermost: Parser = parsed.parser
            innermost.refuse(rest)
        return parsed
    except SystemExit:
        sys.stdout.flush()  # the requested help
        raise


def _drop_output() -> None:
    """Prevents complaints at exit about output that can't be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _flushed(code: Exit) -> Exit:
    """Returns the code once the output is written: a closed pipe or a full disk shows here, not at exit."""
    sys.stdout.flush()
    return code


def _wants_json(words: Sequence[str]) -> bool:
    """Tells whether errors are for programs. The words may be wrong: then nothing has parsed them."""
    forms = [after for word, after in pairwise(words) if word == "--output"]
    forms += [word.removeprefix("--output=") for word in words if word.startswith("--output=")]
    return (forms[-1] if forms else os.environ.get("HANDRAIL_OUTPUT")) == "json"


def _complain(error: CommandError, *, as_json: bool) -> int:
    if as_json:
        told = {"code": int(error.code), "reason": error.reason, "message": error.text}
        print(json_text({"error": {name: value for name, value in told.items() if value}}), file=sys.stderr)
    else:
        print(f"handrail: {clean_lines(error.text)}", file=sys.stderr)
    return error.code


if __name__ == "__main__":
    sys.exit(main())
