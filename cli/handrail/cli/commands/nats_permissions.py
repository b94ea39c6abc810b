"""`handrail nats-permissions`: the broker's users and permissions, from the templates."""

from __future__ import annotations

import argparse
from pathlib import Path

from handrail.cli.arguments import CALLER, add_settings
from handrail.cli.commands.template import listed
from handrail.cli.exits import CommandError, Exit
from handrail.cli.private_files import ensure_passwords, write_private
from handrail.cli.session import Session, session
from handrail.cli.templates import read_template
from handrail.mesh import permissions
from handrail.v1.template_pb2 import FlowTemplate


def fill(parser: argparse.ArgumentParser) -> None:
    """Give the command's parser its arguments."""
    parser.description = (
        "Generate the broker's users and permissions from every stored version of every template, or from "
        "template files before the first start. Include the result in each nats-server's configuration, and reload the "
        "servers (nats-server --signal reload) when it changes."
    )
    parser.add_argument(
        "--template",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        dest="templates",
        help="generate from this file, not from what is stored; may be repeated",
    )
    parser.add_argument(
        "--credentials",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder with the users' passwords, <user>/password; missing ones are made",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write it there, for its owner alone; else print it")
    add_settings(parser, CALLER)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Exit:
    templates = [read_template(path) for path in arguments.templates] if arguments.templates else _stored(arguments)
    users = permissions.users(templates)
    try:
        passwords = ensure_passwords(arguments.credentials, [user.name for user in users])
        text = permissions.render(templates, passwords)
        if arguments.out is None:
            print(text, end="")
            return Exit.OK
        write_private(arguments.out, text)
    except OSError as error:
        raise CommandError(f"{error.filename or arguments.credentials}: {error.strerror}") from None
    print(f"{arguments.out}: {', '.join(user.name for user in users)}")
    return Exit.OK


def _stored(arguments: argparse.Namespace) -> list[FlowTemplate]:
    with session(arguments) as asked:
        return stored_templates(asked)


def stored_templates(asked: Session) -> list[FlowTemplate]:
    """Every stored version of every template: running flows keep the version they began with."""
    return [asked.template(found.name, found.version).template for found in listed(asked)]
