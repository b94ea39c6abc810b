"""Evidence: all that is recorded of one flow, as one file that can be checked without the installation that wrote it.

The file is one JSON document (docs/evidence.md), written and read line by line: what it takes of memory does not follow
from the length of the flow.
"""

from handrail.analysis.evidence.document import Export, Writer, versions_of
from handrail.analysis.evidence.verify import EvidenceError, Verified, lines_of, verify

__all__ = ["EvidenceError", "Export", "Verified", "Writer", "lines_of", "verify", "versions_of"]
