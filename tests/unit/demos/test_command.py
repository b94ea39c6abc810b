"""What the command of a demo makes of its folder, and of how the run ended."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demos.stage.command import FAILED, INTERRUPTED, OK, perform
from demos.stage.story import Story
from handrail.cli.dev.processes import StartError


@pytest.fixture(autouse=True)
def _the_signal_as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def ending(how: bool | BaseException, *, leaving: str = "") -> Callable[[Path, Story], bool]:
    def run(folder: Path, story: Story) -> bool:
        if leaving:
            (folder / leaving).mkdir()
        if isinstance(how, bool):
            return how
        raise how

    return run


@pytest.mark.parametrize(
    "how, status, says",
    [
        (True, OK, ""),
        (False, FAILED, ""),
        (StartError("no broker"), FAILED, "demo: no broker\n"),
        (
            FileNotFoundError(2, "No such file or directory", "input"),
            FAILED,
            "demo: input: No such file or directory\n",
        ),
        (KeyboardInterrupt(), INTERRUPTED, ""),
    ],
)
def test_the_status_says_how_it_ended_and_nothing_is_left(
    how: bool | BaseException,
    status: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert perform(ending(how), name="loans", keep=None, leaves=()) == status
    assert capsys.readouterr().err == says
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_leaves_its_logs_and_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert perform(ending(False, leaving="logs"), name="loans", keep=None, leaves=()) == FAILED
    (kept,) = tmp_path.glob("loans-*/logs")
    assert str(kept.parent) in capsys.readouterr().err


@pytest.mark.parametrize("former", ["book.sqlite", "nats"])
def test_a_folder_that_holds_another_run_is_not_used(
    former: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / former).mkdir()
    assert perform(ending(True), name="loans", keep=tmp_path, leaves=("book.sqlite",)) == FAILED
    assert former in capsys.readouterr().err
