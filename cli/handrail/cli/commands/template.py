"""`handrail template`: checks, stores and activates flow templates."""

from __future__ import annotations

import argparse
from pathlib import Path

from google.protobuf.json_format import MessageToDict

from handrail.cli.arguments import CALLER, add_settings
from handrail.cli.commands import template_activate, template_diff, template_graph
from handrail.cli.commands.template_activate import activation, add_force, exit_of, print_activation
from handrail.cli.commands.template_check import fill_check
from handrail.cli.commands.template_infer import fill_infer
from handrail.cli.commands.template_migrate import fill_migrate
from handrail.cli.commands.template_replay import fill_replay
from handrail.cli.exit_codes import Exit
from handrail.cli.output import time
from handrail.cli.session import Session, plain, session
from handrail.cli.templates import (
    add_contracts,
    contracts_of,
    findings_of,
    needed,
    print_findings,
    read_template,
    refuse,
)
from handrail.cli.versions import Version, add_version, version_of
from handrail.mesh.template.yaml_writer import to_text
from handrail.v1 import template_service_pb2 as pb
from handrail.v1.template_pb2 import FlowTemplate


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)

    fill_check(verbs)
    fill_infer(verbs)
    fill_migrate(verbs)
    fill_replay(verbs)

    put = verbs.add_parser("put", help="check and store a version")
    put.add_argument("file", type=Path, metavar="FILE", help="template in YAML")
    put.add_argument(
        "--activate", action="store_true", help="activate it for new flows, unless a newer version is active"
    )
    put.add_argument("--reason", default="", help="the reason for the activation, for people; it is recorded")
    add_force(put)
    add_contracts(put)
    add_settings(put, CALLER)
    put.set_defaults(run=_put)

    template_activate.add(verbs)

    listing = verbs.add_parser("list", help="list stored versions")
    listing.add_argument("name", nargs="?", default="", metavar="NAME", help="flow type [default: all]")
    add_settings(listing, CALLER)
    listing.set_defaults(run=_list)

    show = verbs.add_parser("show", help="show a version as YAML")
    add_version(show, or_active=True)
    add_settings(show, CALLER)
    show.set_defaults(run=_show)

    template_diff.add(verbs)
    template_graph.add(verbs)


def _put(arguments: argparse.Namespace) -> Exit:
    template = read_template(arguments.file)
    contracts = contracts_of(arguments, arguments.file)
    # The server checks the same; here every finding is shown in full, with its location and remedy.
    findings = findings_of(arguments.file, contracts)
    with session(arguments) as asked:
        refuse(asked.output, arguments.file, findings)
        request = pb.PutTemplateRequest(template=template, descriptors=needed(template, contracts))
        put = asked.client.call(asked.client.templates.PutTemplate, request)
        activated = _activated_if_newer(asked, template, arguments) if arguments.activate else None
        if asked.output.is_json:
            document = {"name": template.name, "version": template.version, **plain(put)}
            asked.output.document(document | ({} if activated is None else plain(activated)))
            return Exit.OK if activated is None else exit_of(activated)
        print_findings(asked.output, [(arguments.file, found) for found in put.findings])
        stored = "was stored already" if put.already_stored else "stored"
        asked.output.text(f"{template.name} version {template.version} {stored}")
        if activated is not None:
            print_activation(asked.output, template.name, activated)
        elif arguments.activate:
            asked.output.text(f"{template.name}: this version or a newer one is active already")
    return Exit.OK if activated is None else exit_of(activated)


def _activated_if_newer(
    asked: Session, template: FlowTemplate, arguments: argparse.Namespace
) -> pb.ActivateTemplateResponse | None:
    """Activates the version; None if this version or a newer one is active. `template rollback` goes back."""
    active = [each.version for each in listed(asked, template.name) if each.active]
    if active and active[0] >= template.version:
        return None
    return activation(asked, Version(template.name, template.version), arguments.reason, force=arguments.force)


def _list(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        found = listed(asked, arguments.name)
        if asked.output.is_json:
            asked.output.document({"templates": [plain(each) for each in found]})
        else:
            asked.output.table(
                ("NAME", "VERSION", "ACTIVE", "PUT BY", "DIGEST"),
                [(t.name, t.version, "yes" if t.active else "", t.put_by, t.digest[:16]) for t in found],
                empty="No templates.",
            )
    return Exit.OK


def listed(asked: Session, name: str = "") -> list[pb.TemplateSummary]:
    """Every stored version, or every one of a flow type."""
    request = pb.ListTemplatesRequest(name=name)
    return list(asked.client.listed(asked.client.templates.ListTemplates, request, items=lambda page: page.templates))


def _show(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        stored = asked.template(*version_of(arguments))
        if asked.output.is_json:
            document = MessageToDict(stored)
            document.pop("descriptors", None)
            asked.output.document(document)
        else:
            asked.output.text(f"# put by {stored.put_by} at {time(stored.put_time)}, digest {stored.digest}")
            print(to_text(stored.template), end="")
    return Exit.OK
