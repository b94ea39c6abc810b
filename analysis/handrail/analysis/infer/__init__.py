"""A template proposed from recorded traffic: what the flows of a type have in common, and what that was told from.

Read are the messages of flows and the contracts they are written in, never a stored template: the names of steps are
in the envelopes, what triggered them is told by their roots, gates and rules by the decisions that name them. What
never happened can't be told, and the notes say so.
"""

from handrail.analysis.infer.notes import Notes
from handrail.analysis.infer.proposal import Inferred, infer
from handrail.analysis.infer.traffic import Traffic

__all__ = ["Inferred", "Notes", "Traffic", "infer"]
