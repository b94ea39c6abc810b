"""The installation of docker-compose.yml, every command by hand: three brokers, two coordinators, five agents."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from handrail.cli.dev.processes import Child, stop
from handrail.mesh.bus import BusSettings, NatsBus
from tests.support.compose import SERVERS, Compose
from tests.support.dev import wait_for

SMALL, LARGE = "cb-small", "cb-large"


def chargeback(id_: str, units: int) -> str:
    amount = {"currency_code": "USD", "units": units}
    return json.dumps({"chargeback_id": id_, "account_id": "acct-0001", "amount": amount})


class House:
    """The services that run, started in the order that the file asks for."""

    def __init__(self, compose: Compose) -> None:
        self.compose = compose
        self.running: dict[str, Child] = {}
        self._done: set[str] = set()

    def up(self) -> None:
        """What `docker compose up` does."""
        waiting = [name for name, service in self.compose.services.items() if not service.get("profiles")]
        while waiting:
            ready = [name for name in waiting if self._may_start(name)]
            assert ready, f"nothing of {waiting} can start"
            for name in ready:
                self._start(name)
                waiting.remove(name)

    def operator(self, *arguments: str) -> str:
        """`docker compose run --rm operator handrail …`."""
        done = self.compose.run("operator", ["handrail", *arguments])
        assert done.returncode == 0, done.stderr
        return done.stdout

    def flows(self) -> dict[str, str]:
        """Flow id -> status."""
        listed = json.loads(self.operator("flow", "list", "--output", "json"))["flows"]
        return {flow["flowId"]: flow["status"].removeprefix("FLOW_STATUS_") for flow in listed}

    def _may_start(self, name: str) -> bool:
        depends: dict[str, Any] = self.compose.services[name].get("depends_on", {})
        for other, wanted in depends.items():
            if wanted["condition"] == "service_completed_successfully" and other not in self._done:
                return False
            if wanted["condition"] == "service_healthy" and other not in self.running:
                return False
        for other, wanted in depends.items():
            if wanted["condition"] == "service_healthy":
                self.wait_healthy(other)
        return True

    def wait_healthy(self, name: str) -> None:
        """Wait as Docker does, by the service's own check."""
        child = self.running[name]

        def healthy() -> bool:
            assert child.is_running, f"{name} ended: {child.last_words()}"
            return self.compose.is_healthy(name)

        wait_for(healthy, f"{name} to be healthy", seconds=90)

    def _start(self, name: str) -> None:
        if "restart" in self.compose.services[name]:
            self.running[name] = self.compose.start(name)
            return
        done = self.compose.run(name)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
        self._done.add(name)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    compose = Compose(tmp_path_factory.mktemp("compose"))
    (compose.folder / "etc" / "handrail" / "chargebacks.jsonl").write_text(
        f"{chargeback(SMALL, 20)}\n{chargeback(LARGE, 5000)}\n"
    )
    house = House(compose)
    with ExitStack() as stack:
        stack.callback(lambda: stop(list(house.running.values()), grace=20))
        house.up()
        yield house


def test_everything_starts_and_is_healthy(house: House) -> None:
    assert len(house.running) == 12
    for name in house.running:
        if house.compose.health(name) is not None:
            house.wait_healthy(name)
    assert all(child.is_running for child in house.running.values())


async def test_the_streams_have_three_replicas(house: House) -> None:
    settings = BusSettings(
        servers=(f"tls://127.0.0.1:{house.compose.ports['nats1', '4222']}",),
        name="admin",
        nkey_seed_file=house.compose.volume("credentials") / "admin" / "nkey",
        tls_ca=house.compose.volume("public") / "ca.pem",
    )
    async with await NatsBus.connect(settings) as bus:
        info = await bus.request_json("$JS.API.STREAM.INFO.FLOW")
    assert info["config"]["num_replicas"] == 3
    assert {info["cluster"]["leader"], *(each["name"] for each in info["cluster"]["replicas"])} == set(SERVERS)


def test_a_small_refund_is_paid_and_a_large_one_waits_for_two_people(house: House) -> None:
    wait_for(lambda: sorted(house.flows().values()) == ["COMPLETED", "WAITING_APPROVAL"], f"{house.flows()}")
    listed = json.loads(house.operator("approval", "list", "--output", "json"))
    assert listed["asOf"]["sequence"] > 0, "it is read from the index"
    (approval,) = listed["approvals"]
    for person in ("anna", "ben"):
        yes = ["handrail", "approval", "approve", approval["approvalId"], "--digest", approval["digest"]]
        voted = house.compose.run(person, yes)
        assert voted.returncode == 0, voted.stderr
    wait_for(lambda: set(house.flows().values()) == {"COMPLETED"}, "the large refund to be paid")
    assert (house.compose.volume("ledger") / "ledger.sqlite").exists()
    told = (house.compose.volume("outbox") / "outbox.jsonl").read_text().splitlines()
    assert len(told) == 2


def test_people_sign_in_at_the_console_with_their_tokens(house: House) -> None:
    origin = f"https://127.0.0.1:{house.compose.ports['console', '7080']}"
    authority = ssl.create_default_context(cafile=house.compose.volume("public") / "ca.pem")
    with httpx.Client(base_url=origin, verify=authority, headers={"origin": origin}, timeout=20) as browser:
        token = (house.compose.volume("vera-token") / "token").read_text().strip()
        assert browser.post("/sign-in", data={"token": token}).headers["location"] == "/"
        page = browser.get("/")
        assert page.status_code == 200
        assert "refund" in page.text


def test_permissions_from_what_is_stored_are_those_of_the_first_start(house: House) -> None:
    permissions = house.compose.volume("brokers") / "permissions.conf"
    before = permissions.read_text()
    done = house.compose.run("permissions")
    assert done.returncode == 0, done.stdout + done.stderr
    assert permissions.read_text() == before


def test_setting_up_again_changes_no_password(house: House) -> None:
    permissions = house.compose.volume("brokers") / "permissions.conf"
    before = permissions.read_text()
    done = house.compose.run("setup")
    assert done.returncode == 0, done.stderr
    assert permissions.read_text() == before
    assert house.compose.run("templates").returncode == 0


def test_it_goes_on_without_one_broker_and_one_coordinator(house: House) -> None:
    house.running["nats2"].kill()
    house.running["coordinator1"].kill()
    other = "coordinator2"
    house.compose.services["operator"]["environment"]["HANDRAIL_ADDRESS"] = f"{other}:7070"
    house.wait_healthy(other)
    start = ["flow", "start", "refund", "--key", "afterwards", "--data", chargeback("cb-afterwards", 30)]
    wait_for(lambda: house.compose.run("operator", ["handrail", *start]).returncode == 0, "a flow to start", seconds=90)
    flow = house.operator(*start).split()[0]
    wait_for(lambda: house.flows().get(flow, "RUNNING") != "RUNNING", "the flow to end", seconds=90)
    assert house.flows()[flow] == "COMPLETED"
