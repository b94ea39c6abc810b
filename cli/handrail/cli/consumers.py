"""A project's file of consumers: who reads, sends or calls its contracts besides its templates' agents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from handrail.analysis.compat.consumers import Consumer, parse, unknown
from handrail.analysis.compat.contract_set import ContractSet
from handrail.cli.buf import BufFinding
from handrail.cli.exit_codes import CommandError, Exit
from handrail.mesh.errors import HandrailError

CONSUMERS = Path("contracts/consumers.yaml")
"""The path of a project's consumers file, which is optional."""


def read_consumers() -> tuple[Consumer, ...]:
    """Reads the consumers of the project in this folder; raises CommandError with Exit.USAGE if the file is invalid."""
    try:
        return parse(CONSUMERS.read_text("utf-8"))
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{CONSUMERS} can't be read: {error}", Exit.USAGE) from None
    except HandrailError as error:
        raise CommandError(f"{CONSUMERS}: {error.text}", Exit.USAGE) from None


def unknown_names(contracts: ContractSet) -> Iterator[BufFinding]:
    """Yields a finding for each name in the file that no contract has."""
    for consumer, name in unknown(read_consumers(), contracts):
        text = f'consumer {consumer.name} names "{name}", which no contract defines'
        yield BufFinding(str(CONSUMERS), 0, 0, "CONSUMER_UNKNOWN_NAME", text)
