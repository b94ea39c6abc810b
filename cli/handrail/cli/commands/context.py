"""`handrail context`: the coordinators that a user calls, by name."""

from __future__ import annotations

import argparse

from handrail.cli.arguments import add_output, add_settings, settings_of
from handrail.cli.contexts import FIELDS, Contexts, Values, checked_name, value_of
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.output import Output
from handrail.mesh import settings as table

_NONE = "-"


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.description = (
        "Keep address, TLS and token file of coordinators under names, and call one of them by default. A flag "
        "overrides the environment, and the environment overrides the context."
    )
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)

    use = verbs.add_parser("use", help="call this coordinator from now on")
    use.add_argument("name", metavar="NAME", help=f"name of a context; {_NONE} for none")
    use.set_defaults(run=_use)

    listing = verbs.add_parser("list", help="list all contexts; * marks the one in use")
    add_output(listing)
    listing.set_defaults(run=_list)

    show = verbs.add_parser("show", help="show a context")
    show.add_argument("name", nargs="?", default="", metavar="NAME", help="name of a context [default: the one in use]")
    add_output(show)
    show.set_defaults(run=_show)

    keep = verbs.add_parser("set", help="add a context, or change what it says")
    keep.description = "Add a context, or change some of its values. An empty value removes one."
    keep.add_argument("name", metavar="NAME", help="name of the context")
    add_settings(keep, FIELDS)
    keep.set_defaults(run=_set)

    delete = verbs.add_parser("delete", help="delete a context")
    delete.add_argument("name", metavar="NAME", help="name of a context")
    delete.set_defaults(run=_delete)


def _use(arguments: argparse.Namespace) -> Exit:
    contexts, output = Contexts.read(), Output("table")
    contexts.current = "" if arguments.name == _NONE else arguments.name
    address = contexts.named(contexts.current)[table.ADDRESS.key] if contexts.current else ""
    contexts.write()
    output.text(f"commands call {address}" if address else "no context is in use")
    return Exit.OK


def _list(arguments: argparse.Namespace) -> Exit:
    contexts, output = Contexts.read(), _output(arguments)
    if output.is_json:
        output.document({"current": contexts.current, "contexts": contexts.by_name})
        return Exit.OK
    output.table(
        ("", "CONTEXT", "ADDRESS", "TLS", "TOKEN FILE"),
        [
            ("*" if name == contexts.current else "", name, *_shown(each, table.ADDRESS, table.TLS, table.TOKEN_FILE))
            for name, each in sorted(contexts.by_name.items())
        ],
        empty="No contexts.",
    )
    return Exit.OK


def _show(arguments: argparse.Namespace) -> Exit:
    contexts, output = Contexts.read(), _output(arguments)
    name = arguments.name or contexts.current
    if not name:
        raise CommandError("no context is in use: name one, or choose one with handrail context use", Exit.NOT_FOUND)
    context = contexts.named(name)
    if output.is_json:
        output.document({"name": name, "current": name == contexts.current, **context})
    else:
        output.fields([("context", name), *((each.flag[2:], context.get(each.key, "")) for each in FIELDS)])
    return Exit.OK


def _set(arguments: argparse.Namespace) -> Exit:
    contexts, given = Contexts.read(), vars(arguments)
    context = contexts.by_name.setdefault(checked_name(arguments.name), {})
    for each in FIELDS:
        text = given[each.key]
        if text:
            context[each.key] = value_of(each, text)
        elif text is not None:
            context.pop(each.key, None)
    if table.ADDRESS.key not in context:
        raise CommandError("a context needs an address: name it with --address", Exit.USAGE)
    contexts.write()
    hint = "" if contexts.current == arguments.name else f"; handrail context use {arguments.name} has commands call it"
    Output("table").text(f"{arguments.name} is {context[table.ADDRESS.key]}{hint}")
    return Exit.OK


def _delete(arguments: argparse.Namespace) -> Exit:
    contexts = Contexts.read()
    contexts.named(arguments.name)
    del contexts.by_name[arguments.name]
    if contexts.current == arguments.name:
        contexts.current = ""
    contexts.write()
    Output("table").text(f"{arguments.name} is deleted")
    return Exit.OK


def _output(arguments: argparse.Namespace) -> Output:
    return Output(settings_of(arguments).value(table.OUTPUT))


def _shown(context: Values, *fields: object) -> list[str]:
    return [context.get(each.key, "") for each in FIELDS if each in fields]
