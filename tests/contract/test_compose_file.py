"""docker-compose.yml, Dockerfile and what goes with them, as far as they can be judged without Docker."""

from __future__ import annotations

import re
from typing import Any

import pytest

from deploy import pin_images
from tests.contract.source import ROOT
from tests.support.compose import compose_file, mounts

FILE = compose_file()
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
ONE_SHOT = {"certificates", "tokens", "setup", "streams", "templates", "operator", "anna", "ben", "vera", "permissions"}
LONG_RUNNING = SERVICES.keys() - ONE_SHOT

# https://github.com/compose-spec/compose-spec/blob/main/05-services.md, as far as the file uses it.
KEYS: dict[str, type | tuple[type, ...]] = {
    "image": str,
    "build": str,
    "init": bool,
    "read_only": bool,
    "tmpfs": list,
    "cap_drop": list,
    "security_opt": list,
    "mem_limit": str,
    "pids_limit": int,
    "ulimits": dict,
    "user": str,
    "restart": str,
    "stop_grace_period": str,
    "command": list,
    "environment": dict,
    "volumes": list,
    "ports": list,
    "profiles": list,
    "depends_on": dict,
    "healthcheck": dict,
}
HEALTHCHECK = {"test", "interval", "timeout", "retries", "start_period"}
CONDITIONS = {"service_healthy", "service_completed_successfully"}
DURATION = re.compile(r"\d+s")


def test_the_file_has_the_shape_of_the_specification() -> None:
    assert FILE.keys() - {key for key in FILE if key.startswith("x-")} == {"services", "volumes"}
    for name, service in SERVICES.items():
        assert service.keys() <= KEYS.keys(), name
        for key, value in service.items():
            assert isinstance(value, KEYS[key]), f"{name}.{key}"
        assert all(isinstance(word, str) for word in service["command"]), name
        assert all(isinstance(value, str) for value in service.get("environment", {}).values()), name


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_refers_to_exists(name: str) -> None:
    service = SERVICES[name]
    for other, depends in service.get("depends_on", {}).items():
        assert other in SERVICES
        assert depends["condition"] in CONDITIONS
        if depends["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other]
        else:
            assert other in ONE_SHOT
    for mount in mounts(service):
        assert mount.volume in FILE["volumes"]
        assert mount.target.startswith("/")
    for port in service.get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), "a port is for this machine alone"


def test_every_volume_is_used() -> None:
    used = {mount.volume for service in SERVICES.values() for mount in mounts(service)}
    assert used == FILE["volumes"].keys()


@pytest.mark.parametrize("name", sorted(LONG_RUNNING))
def test_what_runs_on_is_checked_restarted_and_given_time_to_end(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert DURATION.fullmatch(service["stop_grace_period"])
    # Detection begins flows and waits for nothing: there is nothing to ask it.
    if name != "detection":
        check = service["healthcheck"]
        assert check.keys() == HEALTHCHECK
        assert check["test"][0] == "CMD"
        assert all(DURATION.fullmatch(check[key]) for key in ("interval", "timeout", "start_period"))


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_runs_with_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "cap_add", "network_mode", "pid"}
    # The official image would run as root.
    assert service.get("user", "") == ("10001:10001" if name.startswith("nats") else "")


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_takes_the_whole_machine(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert 0 < service["pids_limit"] <= 256


def test_no_service_sees_credentials_that_are_not_its_own() -> None:
    for name in LONG_RUNNING:
        seen = {m.volume for m in mounts(SERVICES[name]) if "credentials" in m.volume}
        own = {"coordinator-credentials"} if name.startswith("coordinator") else {f"{name}-credentials"}
        if name == "visibility":  # which has the archive, and so may purge
            own.add("retention-credentials")
        assert seen == (set() if name.startswith("nats") or name == "console" else own)
        assert all(mount.read_only for mount in mounts(SERVICES[name]) if mount.volume in seen)


@pytest.mark.parametrize("volume, service", [("signing-key", "tokens"), ("authority", "certificates")])
def test_only_who_signs_has_the_key(volume: str, service: str) -> None:
    assert {name for name in SERVICES if volume in {m.volume for m in mounts(SERVICES[name])}} == {service}


def test_nobody_but_who_makes_them_sees_more_than_one_token_or_the_key_of_another_server() -> None:
    for name in SERVICES.keys() - {"tokens", "certificates"}:
        seen = [mount for mount in mounts(SERVICES[name]) if mount.volume.endswith(("-token", "-tls"))]
        tokens = {mount.volume for mount in seen if mount.volume.endswith("-token")}
        assert len(tokens) <= (name in ONE_SHOT), "what runs on needs no person's token"
        assert {mount.volume for mount in seen} - tokens <= {f"{name}-tls"}
        assert all(mount.read_only for mount in seen)


def test_every_connection_has_tls() -> None:
    for name, service in SERVICES.items():
        environment = service.get("environment", {})
        assert "HANDRAIL_TLS" not in environment, name
        brokers = environment.get("HANDRAIL_NATS", "")
        assert all(address.startswith("tls://") for address in brokers.split(",") if address), name
        if brokers:
            assert environment["HANDRAIL_NATS_CA"] == "/public/ca.pem"
        if "HANDRAIL_ADDRESS" in environment:
            assert environment["HANDRAIL_CA"] == "/public/ca.pem"
    configuration = (ROOT / "deploy" / "nats.conf").read_text("utf-8")
    assert configuration.count("tls {") == 2, "for clients, and for routes"
    for name in ("coordinator1", "visibility"):
        assert SERVICES[name]["environment"]["HANDRAIL_TLS_CERT"] == "/run/tls/tls.pem"
    assert SERVICES["coordinator1"]["environment"]["HANDRAIL_VISIBILITY_CA"] == "/public/ca.pem"


def test_the_brokers_are_limited_and_show_nothing_outside_their_container() -> None:
    configuration = (ROOT / "deploy" / "nats.conf").read_text("utf-8")
    for limit in ("max_connections", "max_subscriptions", "max_payload", "max_file_store", "max_memory_store"):
        assert f"{limit}: " in configuration
    assert re.findall(r"^http.*$", configuration, re.MULTILINE) == ['http: "127.0.0.1:8222"']


def test_every_image_is_a_line_of_the_lock() -> None:
    lock = pin_images.locked((ROOT / "deploy" / "images.lock").read_text("utf-8"))
    assert all(re.fullmatch(r"[a-z/]+:\d+\.\d+\.\d+(-[a-z0-9.-]+)?(@sha256:[0-9a-f]{64})?", line) for line in lock)
    lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    used = {line.split()[1] for line in lines if line.startswith("FROM")}
    used |= {service["image"] for service in SERVICES.values() if "build" not in service}
    assert used == set(lock)


def test_pinning_writes_the_digest_wherever_an_image_is_named() -> None:
    digest = f"sha256:{'a' * 64}"
    lock, called = pin_images.pinned("# text\npython:3.11.14-slim\n", lambda image: digest)
    assert lock == f"# text\npython:3.11.14-slim@{digest}\n"
    text = "FROM python:3.11.14-slim AS build\nFROM python:3.11.14-slim\n# python:3.11.14-slim-bookworm\n"
    pinned = f"python:3.11.14-slim@{digest}"
    assert pin_images.replaced(text, called) == text.replace("python:3.11.14-slim ", f"{pinned} ").replace(
        "python:3.11.14-slim\n", f"{pinned}\n"
    )
    again, called = pin_images.pinned(lock, lambda image: f"sha256:{'b' * 64}")
    assert list(called) == [pinned]
    assert "a" * 64 not in again + pin_images.replaced(pinned, called)


def test_the_brokers_keep_what_they_acknowledge() -> None:
    configuration = (ROOT / "deploy" / "nats.conf").read_text("utf-8")
    assert "sync_interval: always" in configuration
    assert SERVICES["coordinator1"]["environment"]["HANDRAIL_REPLICAS"] == "3"


def test_the_image_runs_as_nobody_special() -> None:
    lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    assert [line for line in lines if line.startswith("USER")] == ["USER handrail"]
    # What a volume is mounted on belongs to that user from the beginning.
    made = " ".join(lines)
    for service in SERVICES.values():
        for mount in mounts(service):
            parent = mount.target.rpartition("/")[0]
            assert f" {mount.target}" in made or (
                parent in ("/credentials", "/tokens", "/certificates", "/brokers")
                and f" {mount.target.rpartition('/')[2]}" in made
            )


def test_what_the_image_copies_is_not_ignored() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    ignored = (ROOT / ".dockerignore").read_text("utf-8")
    copied = [
        match for line in re.findall(r"^COPY (?!--)(.+)$", dockerfile, re.MULTILINE) for match in line.split()[:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert f"!{source.partition('/')[0]}\n" in ignored, source
