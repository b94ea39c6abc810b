"""Whatever a distribution holds, each check has an outcome, and one that keeps its contract."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import hypothesis
from hypothesis import given
from hypothesis import strategies as st

from compliance.v1.compliance_pb2 import Check, CheckCompleted
from demos.compliance import MESSAGES, settings
from demos.compliance.answers import answer
from demos.compliance.checks import binaries, integrity, licences, metadata, names
from demos.compliance.findings import Findings
from demos.compliance.installed import Installed
from handrail.mesh.contracts import Contracts
from tests.support.distributions import at, line

CONTRACTS = Contracts.from_messages(MESSAGES)
POLICY = licences.Policy.load(settings.SHIPPED_POLICY)
NAMES = names.Names.load(settings.SHIPPED_NAMES)
FOLDER = "odd-1.0.dist-info"

CHECKS: dict[Check.ValueType, Callable[[Installed], Findings]] = {
    Check.CHECK_LICENCES: lambda installed: licences.check(installed, POLICY),
    Check.CHECK_METADATA: metadata.check,
    Check.CHECK_BINARIES: binaries.check,
    Check.CHECK_NAMES: lambda installed: names.check(installed, NAMES),
}

ANYTHING = st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass"))
FIELDS = st.sampled_from(
    [
        *("Metadata-Version", "Name", "Version", "Requires-Python", "Requires-Dist", "License", "License-Expression"),
        *("License-File", "Classifier", "Summary", "Author"),
    ]
)
HEADERS = st.lists(st.tuples(FIELDS, ANYTHING), max_size=6).map(
    lambda fields: b"\n".join(name.encode() + b": " + value for name, value in fields)
)
PATHS = st.sampled_from(["odd.pth", "odd/a.py", "../b.py", "/etc/passwd", f"{FOLDER}/METADATA", FOLDER, "odd", ""])
RECORDS = st.lists(
    st.tuples(PATHS | st.text(max_size=20), ANYTHING).map(
        lambda each: line(each[0], each[1]).encode("utf-8", "surrogatepass")
    )
    | ANYTHING,
    max_size=6,
).map(b"\n".join)


@hypothesis.settings(max_examples=40)
@given(metadata_=ANYTHING | HEADERS, record=RECORDS, wheel=ANYTHING | st.just(b"Tag: py3-none-any\n"), content=ANYTHING)
def test_nothing_that_is_installed_makes_a_check_fail_to_answer(
    metadata_: bytes, record: bytes, wheel: bytes, content: bytes
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder)
        (site / FOLDER).mkdir()
        (site / "odd").mkdir()
        for name, each in (("METADATA", metadata_), ("RECORD", record), ("WHEEL", wheel), ("direct_url.json", content)):
            (site / FOLDER / name).write_bytes(each)
        (site / "odd.pth").write_bytes(content)
        (site / "odd" / "a.py").write_bytes(content)
        installed = at(site, FOLDER)
        inspection = integrity.inspect(installed)
        said = list(answer(installed, Check.CHECK_INTEGRITY, inspection.findings, fingerprint=inspection.fingerprint))
        for check, look in CHECKS.items():
            said += answer(installed, check, look(installed))
        for message in said:
            CONTRACTS.validate(message)
        outcomes = [message.check for message in said if isinstance(message, CheckCompleted)]
        assert outcomes == [Check.CHECK_INTEGRITY, *CHECKS]
