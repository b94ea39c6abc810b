"""The coordinator's gRPC server: its services, guards and limits, and its graceful shutdown."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import grpc.aio
from grpc_channelz.v1 import channelz, channelz_pb2
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from handrail.coordinator.api import reflection
from handrail.coordinator.api.act_lists import ActLists
from handrail.coordinator.api.approval_lists import ApprovalLists
from handrail.coordinator.api.audit import RefusalAudit
from handrail.coordinator.api.authorization import caller_if_known
from handrail.coordinator.api.budget_guard import CALLS, STREAMS, BudgetGuard
from handrail.coordinator.api.budgets import Limit
from handrail.coordinator.api.delegation_log import DelegationLog
from handrail.coordinator.api.divergence_lists import DivergenceLists
from handrail.coordinator.api.failure_lists import FailureLists
from handrail.coordinator.api.flow_lists import FlowLists
from handrail.coordinator.api.flow_lookup import Finder
from handrail.coordinator.api.flow_reading import FlowReader
from handrail.coordinator.api.guards import AuthGuard, ContractGuard, DeadlineGuard, ErrorGuard, ScopeGuard
from handrail.coordinator.api.health_service import HealthService
from handrail.coordinator.api.interceptors import Around, Interceptors
from handrail.coordinator.api.publish_event import Publishing
from handrail.coordinator.api.receiving import PATIENCE, Receiving
from handrail.coordinator.api.reflection import Reflection
from handrail.coordinator.api.rpc_tracing import Tracing
from handrail.coordinator.api.services.acts import ActService
from handrail.coordinator.api.services.approvals import ApprovalService
from handrail.coordinator.api.services.delegations import DelegationService
from handrail.coordinator.api.services.flows import FlowService
from handrail.coordinator.api.services.identity import IdentityService
from handrail.coordinator.api.services.quarantine import QuarantineService
from handrail.coordinator.api.services.templates import TemplateService
from handrail.coordinator.api.template_acts import TemplateActDesk
from handrail.coordinator.api.template_lookup import TemplateFinder
from handrail.coordinator.api.tokens.settings import TokenSettings
from handrail.coordinator.api.tokens.verifier import TokenVerifier
from handrail.coordinator.api.usage_lists import UsageLists
from handrail.coordinator.api.watch import Watcher
from handrail.coordinator.lists.acts import ActScanner
from handrail.coordinator.lists.archive import Archive
from handrail.coordinator.lists.divergences import DivergenceScanner
from handrail.coordinator.lists.flows import Scanner
from handrail.coordinator.lists.index import Index, IndexSettings
from handrail.coordinator.lists.quarantined import QuarantineReader
from handrail.coordinator.reconcile.activation import Activator
from handrail.coordinator.reconcile.diagnosis import Findings
from handrail.coordinator.reconcile.drain import Drain
from handrail.coordinator.reconcile.replica import Replica
from handrail.coordinator.replay.replay_job import Replays
from handrail.coordinator.workers.pool import WorkerPool
from handrail.coordinator.workers.process import Limits
from handrail.mesh.setting_parsers import is_loopback
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.tls import Certificates, TlsFiles
from handrail.mesh.wire.identity import canonical
from handrail.v1 import (
    act_service_pb2,
    approval_service_pb2,
    delegation_service_pb2,
    flow_service_pb2,
    identity_service_pb2,
    quarantine_service_pb2,
    template_service_pb2,
)
from handrail.v1.act_service_pb2_grpc import add_ActServiceServicer_to_server
from handrail.v1.approval_service_pb2_grpc import add_ApprovalServiceServicer_to_server
from handrail.v1.delegation_service_pb2_grpc import add_DelegationServiceServicer_to_server
from handrail.v1.flow_service_pb2_grpc import add_FlowServiceServicer_to_server
from handrail.v1.identity_service_pb2_grpc import add_IdentityServiceServicer_to_server
from handrail.v1.quarantine_service_pb2_grpc import add_QuarantineServiceServicer_to_server
from handrail.v1.template_service_pb2_grpc import add_TemplateServiceServicer_to_server

log = logging.getLogger(__name__)

SERVICES = tuple(
    service.full_name
    for module in (
        flow_service_pb2,
        approval_service_pb2,
        delegation_service_pb2,
        act_service_pb2,
        template_service_pb2,
        quarantine_service_pb2,
        identity_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
)
"""The services of the API."""

MAX_REQUEST_BYTES = 1 << 20
"""The broker's default message limit; a template with 900,000 bytes of contracts fits."""

_LONGER = {
    # It changes every agent's durable before it records anything.
    "/handrail.v1.TemplateService/ActivateTemplate": timedelta(seconds=30),
    "/handrail.v1.ActService/ConfirmAct": timedelta(seconds=30),
    # It folds up to 500 flows.
    "/handrail.v1.TemplateService/GetTemplateUsage": timedelta(seconds=30),
    # They wait for their turn in a worker process.
    "/handrail.v1.TemplateService/CheckTemplate": timedelta(seconds=30),
    "/handrail.v1.TemplateService/PutTemplate": timedelta(seconds=30),
}

_SPARE_STREAMS = 32
"""Streams of a connection beyond what its caller may have in progress: for health and reflection, and to be refused."""

_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_CHANNELZ = channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].full_name


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where the server listens and what it allows.

    `address` is host and port; port 0 picks a free one. `public_keys` are PEM files with keys that may sign bearer
    tokens; `tokens` says what else makes a token valid. `tls` switches TLS on. `index` is where lists are read from.
    `reflected_contracts` says who sees the contracts of stored templates by reflection: `token` (who has a valid one),
    `open` (everybody) or `off` (nobody). `connections`, `calls` and `streams` bound what is in progress, and
    `message_timeout` how long each message of a call may take. `check_workers` is the number of processes that check
    templates, `check_limits` what a template may take there; with `check_warm` they are started before the first call.
    `grace` is how long calls in progress may take at shutdown.
    """

    address: str
    public_keys: tuple[Path, ...] = ()
    tokens: TokenSettings = field(default_factory=TokenSettings)
    tls: TlsFiles | None = None
    reflection: bool = True
    channelz: bool = True
    check_workers: int = 1
    check_limits: Limits = field(default_factory=Limits)
    check_warm: bool = True
    default_deadline: timedelta = timedelta(seconds=5)
    shortest_deadline: timedelta = timedelta(milliseconds=5)
    reflected_contracts: str = "token"
    index: IndexSettings | None = None
    connections: int = 500
    calls: Limit = CALLS
    streams: Limit = STREAMS
    message_timeout: timedelta = PATIENCE
    grace: timedelta = timedelta(seconds=10)


class Server:
    """Serves a replica's flows. Unhealthy until `set_serving` says otherwise."""

    def __init__(self, replica: Replica, settings: ServerSettings) -> None:
        self._settings = settings
        self._drain = Drain()
        self._workers = WorkerPool(settings.check_workers, settings.check_limits)
        self._health = HealthService(SERVICES)
        self._index = Index(settings.index, _caller)
        self._verifier = TokenVerifier(settings.tokens, settings.public_keys)
        arounds: list[Around] = [
            Tracing(),
            ErrorGuard(),
            RefusalAudit(),
            AuthGuard(self._verifier),
            BudgetGuard(calls=settings.calls, streams=settings.streams),
            Receiving(patience=settings.message_timeout),
            ScopeGuard(),
            DeadlineGuard(default=settings.default_deadline, floor=settings.shortest_deadline, longer=_LONGER),
            ContractGuard(),
        ]
        # No `maximum_concurrent_rpcs`: it counts health checks among all other calls, and strangers among callers.
        self._server = grpc.aio.server(interceptors=[Interceptors(arounds)], options=_options(settings))
        self._credentials = Certificates(settings.tls).credentials() if settings.tls is not None else None
        self._add_services(replica)
        self._add_tools(replica.catalog)

    async def start(self) -> int:
        """Starts to listen and returns the port; raises OSError if it is taken or can't be bound."""
        try:
            port = self._add_port(self._settings.address)
        except RuntimeError as error:
            raise OSError(
                f"can't listen on {self._settings.address}: the port is taken, or this host does not have the address"
            ) from error
        await self._verifier.keys.prepare()
        await self.set_serving(False)
        await self._server.start()
        return port

    async def set_serving(self, serving: bool) -> None:
        """Reports whether broker and streams are available; applies to every service."""
        await self.tell({} if serving else {"start": "streams and durables are not ready yet"})

    def warm_up(self) -> None:
        """Starts the processes that check templates, if the settings say so, without waiting for them."""
        if self._settings.check_warm:
            self._workers.warm()

    async def tell(self, findings: Findings, notices: Collection[str] = ()) -> None:
        """Reports which parts are broken (see `diagnosis`), and those that people should look at."""
        self._health.tell(findings, notices)

    async def drain(self) -> None:
        """Shuts down: health flips, watches end, calls in progress get the grace period, new calls are refused."""
        self._health.shut_down()
        self._drain.begin()
        await self._server.stop(self._settings.grace.total_seconds())
        await self._workers.close()
        await self._index.close()

    def _add_port(self, address: str) -> int:
        if self._credentials is not None:
            return self._server.add_secure_port(address, self._credentials)
        if not is_loopback(address):
            log.warning("%s is served without TLS: tokens cross the network in plain text", address)
        return self._server.add_insecure_port(address)

    def _add_services(self, replica: Replica) -> None:
        archive = Archive(self._index)
        finder = Finder(replica.bus, replica.store, replica.reconciler.flows, archive)
        reader = FlowReader(finder, replica.store, archive)
        scanner = Scanner(replica.bus, replica.store)
        flows = FlowService(
            finder=finder,
            reader=reader,
            catalog=replica.catalog,
            lists=FlowLists(self._index, scanner, replica.catalog),
            divergences=DivergenceLists(self._index, DivergenceScanner(replica.bus, replica.store), replica.catalog),
            failures=FailureLists(self._index, replica.catalog),
            watcher=Watcher(replica.bus, replica.store, self._drain),
            publishing=Publishing(replica.bus, replica.catalog, replica.store),
            operator_actions=replica.operator_actions,
            bus=replica.bus,
        )
        delegations = DelegationLog(replica.bus)
        approvals = ApprovalService(
            finder=finder,
            reader=reader,
            lists=ApprovalLists(self._index, scanner, replica.store),
            operator_actions=replica.operator_actions,
            delegations=delegations,
            revocations=self._verifier.revocations,
        )
        activator = Activator(replica.bus, replica.catalog, replica.leases)
        desk = TemplateActDesk(replica.bus, replica.catalog, activator)
        acts = ActService(
            desk=desk,
            finder=finder,
            reader=reader,
            catalog=replica.catalog,
            lists=ActLists(self._index, ActScanner(replica.bus, replica.store), scanner, replica.catalog),
            operator_actions=replica.operator_actions,
        )
        replays = Replays(replica.bus, replica.catalog, self._drain, self._workers)
        usage = UsageLists(self._index, scanner, replica.catalog, replica.bus)
        templates = TemplateService(
            replica.bus,
            replica.catalog,
            usage,
            self._index,
            replays,
            activator=activator,
            desk=desk,
            workers=self._workers,
        )
        # Each method is registered, so that its calls which are not begun yet have a queue of their own: a flood of one
        # method leaves room for the others. It costs each call some 40 µs.
        add_FlowServiceServicer_to_server(flows, self._server)
        add_ApprovalServiceServicer_to_server(approvals, self._server)
        add_ActServiceServicer_to_server(acts, self._server)
        add_TemplateServiceServicer_to_server(templates, self._server)
        add_DelegationServiceServicer_to_server(
            DelegationService(delegations, TemplateFinder(replica.catalog)), self._server
        )
        add_QuarantineServiceServicer_to_server(QuarantineService(QuarantineReader(replica.bus)), self._server)
        add_IdentityServiceServicer_to_server(IdentityService(), self._server)

    def _add_tools(self, catalog: Catalog) -> None:
        served = [*SERVICES, _HEALTH]
        add_HealthServicer_to_server(self._health, self._server)
        if self._settings.channelz:
            served.append(_CHANNELZ)
            channelz.add_channelz_servicer(self._server)  # type: ignore[arg-type]
        if self._settings.reflection:
            served += reflection.SERVICES
            mode = self._settings.reflected_contracts
            handlers = Reflection(served, lambda: _stored_contracts(catalog, mode)).handlers()
            self._server.add_generic_rpc_handlers(handlers)


def _caller() -> str:
    """The canonical name of the current caller; empty outside of a call."""
    caller = caller_if_known()
    return "" if caller is None else canonical(caller.subject)


def _options(settings: ServerSettings) -> Sequence[tuple[str, int]]:
    return (
        ("grpc.max_allowed_incoming_connections", settings.connections),
        # Per connection; more than one caller may have in progress, so that a caller is told which limit it is at.
        ("grpc.max_concurrent_streams", settings.calls.each + settings.streams.each + _SPARE_STREAMS),
        # The handshakes of TLS and HTTP/2 together.
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.max_connection_idle_ms", 300_000),
        # Identity alone: gRPC compares the limit below with what arrives, and inflates it without any limit.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
        # Without this, a second server on the same port would start and receive half of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        # Clients reconnect from time to time, so that they spread over the replicas again.
        ("grpc.max_connection_age_ms", 600_000),
        ("grpc.max_connection_age_grace_ms", 30_000),
    )


def _stored_contracts(catalog: Catalog, mode: str) -> list[bytes]:
    """Returns the contracts of the stored templates that the caller may see: active versions first, then the newest."""
    caller = caller_if_known()
    templates = sorted(
        (
            template
            for template in catalog.all()
            if mode == "open" or (mode == "token" and caller is not None and caller.reads(template.name))
        ),
        key=lambda template: (template.version == catalog.active_version(template.name), template.version),
        reverse=True,
    )
    return [template.descriptor_set for template in templates]
