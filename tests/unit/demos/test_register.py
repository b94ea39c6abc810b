"""The register of approvals: each once per key, each withdrawn once."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from demos.compliance.approvals import Approval, Register, RegisterError


@pytest.fixture
def register(tmp_path: Path) -> Register:
    return Register(tmp_path / "register.sqlite")


def approve(register: Register, distribution: str = "idna==3@here", remarks: tuple[str, ...] = ()) -> Approval:
    return register.approve(key="k", distribution=distribution, fingerprint="f", remarks=remarks)


def test_p8_the_same_key_is_the_same_approval(register: Register) -> None:
    first = approve(register, remarks=("licences",))
    assert approve(register, remarks=("licences",)) == first
    assert register.approvals() == [first]
    with pytest.raises(RegisterError, match="belongs to"):
        approve(register, distribution="other==1@here")


def test_p8_an_approval_is_withdrawn_once_whichever_keys_ask_for_it(register: Register, tmp_path: Path) -> None:
    approval = approve(register)
    for key in ("u1", "u1", "u2"):
        register.withdraw(key=key, approval_id=approval.approval_id)
    assert register.withdrawn() == {approval.approval_id}
    assert register.approvals() == [approval]
    connection = sqlite3.connect(tmp_path / "register.sqlite")
    assert connection.execute("SELECT idempotency_key FROM withdrawals").fetchall() == [("u1",)]
    connection.close()


def test_what_it_does_not_hold_cant_be_withdrawn(register: Register) -> None:
    with pytest.raises(RegisterError, match="not in the register"):
        register.withdraw(key="u", approval_id="ap-none")


def test_p8_many_at_once_write_one_approval(tmp_path: Path) -> None:
    path = tmp_path / "register.sqlite"
    Register(path)
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: approve(Register(path)), range(40)))) == 1
    assert len(Register(path).approvals()) == 1
