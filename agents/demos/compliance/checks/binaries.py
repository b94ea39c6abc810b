"""The check for code that runs without being imported: lines of .pth files, and native binaries."""

import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from demos.compliance.checks.record import recorded
from demos.compliance.findings import Findings
from demos.compliance.installed import Installed, Unreadable, read_text

ELF, MACH_O, PE = "ELF", "Mach-O", "PE"

NATIVE_HERE = {"linux": ELF, "darwin": MACH_O, "win32": PE}
"""The format that a platform runs, by `sys.platform`."""

_MACH_O = {bytes.fromhex(magic) for magic in ("feedface", "feedfacf", "cefaedfe", "cffaedfe")}
_FAT_MACH_O = bytes.fromhex("cafebabe")
# A Java class file begins like a fat Mach-O. Its version, 45 or more, is where Mach-O has the number of architectures.
_ARCHITECTURES = 20
_PE_OFFSET_AT = 0x3C


def check(installed: Installed) -> Findings:
    """Checks the first bytes of every file, independent of its name, and the lines of every .pth."""
    findings = Findings()
    native: dict[str, list[str]] = defaultdict(list)
    try:
        for path in _files(installed):
            file = installed.environment.locate(path)
            if file is None or not file.is_file():
                continue  # the integrity check reports it
            format_ = native_format(file)
            if format_:
                native[format_].append(path)
            elif path.endswith(".pth") and PurePosixPath(path).parent == PurePosixPath("."):
                _read_pth(installed, path, findings)
    except Unreadable as error:
        findings.note("NOT_LOOKED_AT", "RECORD", f"its files are unknown: {error}")
    _judge(installed, native, findings)
    return findings


def native_format(file: Path) -> str:
    """The format of a native binary, by its content; empty if it is not one or can't be read."""
    try:
        with file.open("rb") as content:
            head = content.read(64)
            if head[:4] == b"\x7fELF":
                return ELF
            if head[:4] in _MACH_O:
                return MACH_O
            if head[:4] == _FAT_MACH_O and len(head) >= 8:
                return MACH_O if int.from_bytes(head[4:8], "big") <= _ARCHITECTURES else ""
            if head[:2] == b"MZ" and len(head) == 64:
                content.seek(int.from_bytes(head[_PE_OFFSET_AT:], "little"))
                return PE if content.read(4) == b"PE\0\0" else ""
    except OSError:
        pass
    return ""


def is_pure(installed: Installed) -> bool | None:
    """Whether its wheel declares itself platform-independent; None if it declares nothing.

    https://packaging.python.org/en/latest/specifications/binary-distribution-format/
    """
    wheel = installed.read("WHEEL") if installed.folder.is_dir() else None
    if wheel is None:
        return None
    tags = [line.partition(":")[2].strip() for line in wheel.splitlines() if line.startswith("Tag:")]
    return all(tag.endswith("-any") for tag in tags) if tags else None


def _files(installed: Installed) -> Iterator[str]:
    return (entry.path for entry in recorded(installed) if not entry.is_cache)


def _judge(installed: Installed, native: dict[str, list[str]], findings: Findings) -> None:
    """Judges binaries: a platform-independent wheel may have none, another wheel only those of this platform."""
    try:
        pure = is_pure(installed)
    except Unreadable as error:
        findings.note("WHEEL_UNREADABLE", "WHEEL", str(error))
        pure = None
    for format_, paths in sorted(native.items()):
        what = f"{len(paths)} native binaries ({format_})" if len(paths) > 1 else f"a native binary ({format_})"
        if format_ != NATIVE_HERE.get(sys.platform):
            findings.failure("BINARY_OF_ANOTHER_PLATFORM", paths[0], f"{what}, which this platform can't run")
        elif pure:
            findings.failure("BINARY_IN_PURE_WHEEL", paths[0], f"{what} in a wheel that declares none")
        else:
            findings.note("BINARY", paths[0], what)


def _read_pth(installed: Installed, path: str, findings: Findings) -> None:
    """Checks a .pth file, which Python reads at every start: https://docs.python.org/3/library/site.html"""
    try:
        lines = (read_text(installed.environment, path) or "").splitlines()
    except Unreadable as error:
        findings.failure("PTH_UNREADABLE", path, str(error))
        return
    code = [line for line in lines if line.startswith(("import ", "import\t"))]
    paths = [line for line in lines if line.strip() and not line.startswith("#") and line not in code]
    if code:
        findings.failure("PTH_RUNS_CODE", path, f"every start of Python runs: {code[0]}")
    if paths:
        findings.note("PTH_ADDS_PATHS", path, f"every start of Python looks for modules in: {', '.join(paths)}")
