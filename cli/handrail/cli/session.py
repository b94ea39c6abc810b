"""The session of a command that asks a coordinator: client, output, and the contracts of the flows it shows.

Contracts are loaded when data are opened: tables need none.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from handrail.cli.arguments import settings_of
from handrail.cli.client import Client
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.output import Json, Output
from handrail.cli.parser import similar
from handrail.cli.recent_flows import RecentFlows
from handrail.mesh import settings as table
from handrail.mesh.setting import Settings

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any
    from google.protobuf.message import Message

    from handrail.mesh.contracts import Contracts
    from handrail.v1.template_pb2 import StoredTemplate

_NO_FIELD = re.compile(r'has no field named "(\w+)" .*Available Fields\(except extensions\): "(.*)"')


class Session:
    """The client, output and contracts of one command. Create one with `session`."""

    def __init__(self, settings: Settings, client: Client, output: Output) -> None:
        self.settings = settings
        self.client = client
        self.output = output
        self.recent = RecentFlows(client.address)
        self._stored: dict[tuple[str, int], StoredTemplate] = {}
        self._contracts: dict[tuple[str, int], Contracts] = {}

    def template(self, flow_type: str, version: int = 0) -> StoredTemplate:
        """Returns a stored version, or the active one; raises CommandError if it does not exist."""
        from handrail.v1.template_service_pb2 import GetTemplateRequest

        key = (flow_type, version)
        if key not in self._stored:
            request = GetTemplateRequest(name=flow_type, version=version)
            self._stored[key] = self.client.call(self.client.templates.GetTemplate, request).stored
        return self._stored[key]

    def contracts(self, flow_type: str, version: int = 0) -> Contracts:
        """Returns the contracts stored with a version."""
        from handrail.mesh.contracts import Contracts

        key = (flow_type, version)
        if key not in self._contracts:
            self._contracts[key] = Contracts.from_descriptor_set(self.template(flow_type, version).descriptors)
        return self._contracts[key]

    def to_json(self, message: Message, flow_type: str, version: int = 0) -> dict[str, Json]:
        """Converts a message to JSON; domain messages are opened with this flow type's contracts, if it is given."""
        return self.contracts(flow_type, version).to_json(message) if flow_type else plain(message)

    def payload(self, contracts: Contracts, type_name: str, text: str, *, one_of: Sequence[str]) -> Any:
        """Parses a JSON text into a message of this type; without a name, of the only one that is allowed.

        Raises CommandError if the text does not fit, or if a name is needed.
        """
        from google.protobuf.json_format import ParseDict, ParseError

        from handrail.mesh.contracts import pack

        if not type_name:
            if len(one_of) != 1:
                raise CommandError(f"--type is required: it is one of {', '.join(one_of) or 'none'}", Exit.USAGE)
            type_name = one_of[0]
        message = contracts.message_class(type_name)()
        try:
            fields = json.loads(text)
            if not isinstance(fields, dict):
                raise ParseError("it is not a JSON object")
            ParseDict(fields, message, descriptor_pool=contracts.pool)
        except (ParseError, ValueError, RecursionError) as error:
            why = " ".join(str(error).split())
            raise CommandError(f"the data can't be read as {type_name} in JSON: {why}{_meant(why)}") from None
        return pack(message)


def _meant(why: str) -> str:
    """A hint at the field that was probably meant, by what the parser says of one that there is not."""
    unknown = _NO_FIELD.search(why)
    return similar(unknown[1], re.findall(r"'(\w+)'", unknown[2])) if unknown else ""


@contextmanager
def session(arguments: argparse.Namespace) -> Iterator[Session]:
    """Opens a session for these arguments, and closes its connection at the end."""
    settings = settings_of(arguments)
    output = Output(settings.value(table.OUTPUT))
    with Client.of(settings) as client:
        client.request_id = getattr(arguments, "request_id", None)
        yield Session(settings, client, output)


def plain(message: Message) -> dict[str, Json]:
    """Converts a message without domain messages to JSON."""
    from handrail.mesh.contracts import Contracts

    return Contracts.from_descriptor_set(b"").to_json(message)
