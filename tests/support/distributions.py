"""Python distributions made by tests: folders as an installer writes them."""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

from demos.compliance.installed import Environment, Installed

METADATA = """\
Metadata-Version: 2.4
Name: {name}
Version: {version}
Summary: made up
Author: nobody
Project-URL: Source, https://example.org
Requires-Python: >=3.8
License-Expression: MIT
"""

PURE = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
PLATFORM = "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp311-cp311-manylinux_2_17_x86_64\n"


def line(path: str, content: bytes) -> str:
    """A line of a RECORD."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(content)}"


def install(
    site: Path,
    name: str,
    version: str = "1.0",
    *,
    files: Mapping[str, bytes] | None = None,
    metadata: str | bytes = METADATA,
    also: str = "",
    wheel: str = PURE,
    record: str | None = None,
) -> Installed:
    """Writes a distribution. `also` is added to its metadata; `record` replaces the correct RECORD."""
    folder = f"{name.replace('-', '_')}-{version}.dist-info"
    if isinstance(metadata, str):
        metadata = (metadata.format(name=name, version=version) + also).encode()
    own = {f"{name.replace('-', '_')}/__init__.py": b"answer = 42\n"} if files is None else files
    content = {**own, f"{folder}/METADATA": metadata, f"{folder}/WHEEL": wheel.encode()}
    for path, each in content.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(each)
    lines = [*(line(path, each) for path, each in content.items()), f"{folder}/RECORD,,"]
    (site / folder / "RECORD").write_text("\n".join(lines) + "\n" if record is None else record, "utf-8")
    return at(site, folder)


def at(site: Path, folder: str) -> Installed:
    """The distribution with its metadata in this folder."""
    installed = Environment("made-up", site).at(folder)
    assert installed is not None, folder
    return installed
