"""Pins the images of deploy/images.lock by digest: `make pin-images`. It needs Docker and the images' registry.

A digest names the bytes of an image; a tag may name others tomorrow. Docker checks the digest of what it pulls.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "deploy" / "images.lock"
USERS = (ROOT / "Dockerfile", ROOT / "docker-compose.yml")
"""The files that name images."""

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def locked(text: str) -> list[str]:
    """The images of a lock, with or without a digest."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pinned(text: str, digest_of: Callable[[str], str]) -> tuple[str, dict[str, str]]:
    """The lock with the digests of now, and what each image is called in it. Raises what `digest_of` raises."""
    called = {}
    for image in locked(text):
        tag = image.partition("@")[0]
        called[image] = f"{tag}@{digest_of(tag)}"
    lines = [called.get(line, line) for line in text.splitlines()]
    return "\n".join(lines) + "\n", called


def replaced(text: str, called: dict[str, str]) -> str:
    """A file that names images, with each as it is called now."""
    for before, after in called.items():
        text = re.sub(rf"(?<!\S){re.escape(before)}(?!\S)", after, text)
    return text


def _digest(image: str) -> str:
    command = ["docker", "buildx", "imagetools", "inspect", image, "--format", "{{.Manifest.Digest}}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise SystemExit(
            f"docker can't be run: {error.strerror}; install it, or pin on a machine that has it"
        ) from None
    digest = done.stdout.strip()
    if done.returncode or not DIGEST.fullmatch(digest):
        raise SystemExit(f"no digest of {image}: {done.stderr.strip() or digest or 'docker said nothing'}")
    return digest


def main(arguments: Sequence[str]) -> None:
    """Rewrites the lock and the files that name its images."""
    if arguments:
        raise SystemExit("usage: pin_images.py")
    text, called = pinned(LOCK.read_text("utf-8"), _digest)
    LOCK.write_text(text, "utf-8")
    for path in USERS:
        path.write_text(replaced(path.read_text("utf-8"), called), "utf-8")
    for image in called.values():
        print(image)


if __name__ == "__main__":
    main(sys.argv[1:])
