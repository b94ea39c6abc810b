"""Put the third-party protos that ours import beside them: proto/google and proto/buf, both ignored by git.

Both sources are pinned by hash: google's files come from the installed wheel of googleapis-common-protos
(requirements.lock), validate.proto from a source distribution of protovalidate (protovalidate.txt).
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import files
from pathlib import Path

PROTO = Path(__file__).parent.parent / "proto"
PIN = Path(__file__).parent / "protovalidate.txt"
GOOGLE_FOLDERS = (Path("google/rpc"), Path("google/type"))
VALIDATE = Path("buf/validate/validate.proto")


def copy_google(target: Path) -> None:
    """Copy the protos of GOOGLE_FOLDERS, without their subfolders, from the installed wheel."""
    for file in files("googleapis-common-protos") or ():
        if file.suffix == ".proto" and Path(file).parent in GOOGLE_FOLDERS:
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), target / file)


def download_validate(target: Path) -> None:
    """Download the pinned source distribution and copy validate.proto out of it; pip refuses any other hash."""
    options = ["--no-deps", "--no-binary=:all:", "--no-build-isolation", "--require-hashes", "-qq"]
    with tempfile.TemporaryDirectory() as scratch:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
        subprocess.run([*pip, *options, f"--requirement={PIN}", f"--dest={scratch}"], check=True)
        (archive,) = Path(scratch).iterdir()
        with tarfile.open(archive) as source:
            member = next(name for name in source.getnames() if name.endswith(f"upstream/proto/{VALIDATE}"))
            content = source.extractfile(member)
            assert content is not None, f"{member} is no file"
            (target / VALIDATE).parent.mkdir(parents=True, exist_ok=True)
            (target / VALIDATE).write_bytes(content.read())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        copy_google(Path(scratch))
        try:
            download_validate(Path(scratch))
        except subprocess.CalledProcessError:
            sys.exit(f"{VALIDATE} could not be fetched: pip's reason is above. Try again when that is mended.")
        for folder in ("google", "buf"):
            shutil.rmtree(PROTO / folder, ignore_errors=True)
            shutil.copytree(Path(scratch, folder), PROTO / folder)
