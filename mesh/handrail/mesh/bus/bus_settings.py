"""The addresses of the broker, and the credentials to connect with."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from handrail.mesh.bus.nkey import public_key, read_seed
from handrail.mesh.errors import WrongCredentials


@dataclass(frozen=True, slots=True)
class BusSettings:
    """How to connect to the broker.

    `name` is the name of the agent, or `coordinator`, `viewer`, …. It appears in the broker's monitoring and, without
    `inbox_prefix`, determines the inbox, which the broker's permissions reserve for this user.

    Give `user` and `password`, or a file with an nkey seed. `tls_ca` is the authority of the servers' certificates, by
    default those that this machine trusts; `tls_cert` and `tls_key` are a client certificate. Each of them switches TLS
    on, and so does an address `tls://…`; nothing is sent to a server without TLS then. `connect_timeout` bounds the
    first connection; reconnects are tried forever.
    """

    servers: tuple[str, ...]
    name: str
    user: str = ""
    password: str = ""
    nkey_seed_file: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    inbox_prefix: str = ""
    connect_timeout: timedelta = timedelta(seconds=10)

    @property
    def inbox(self) -> str:
        """The prefix of all inboxes of this user."""
        return self.inbox_prefix or f"_INBOX_{self.name}"

    @property
    def needs_tls(self) -> bool:
        """Whether TLS is on, for all servers: a server may name others to connect to, which inherit no scheme."""
        given = self.tls_ca is not None or self.tls_cert is not None
        return given or any(server.startswith(("tls://", "wss://")) for server in self.servers)

    def credentials(self) -> tuple[ssl.SSLContext | None, str | None]:
        """The TLS context and the nkey seed. Raises WrongCredentials, which names the unusable file."""
        files = (self.tls_ca, self.tls_cert, self.tls_key, self.nkey_seed_file)
        path: Path | None = None
        try:
            for path in filter(None, files):
                path.read_bytes()
            path = self.tls_cert or self.tls_ca
            tls = self._tls()
            path = self.nkey_seed_file
            return tls, read_seed(path) if path is not None else None
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise WrongCredentials(
                f"{self.name} can't connect to the broker: its credentials file {path} can't be used: {why}"
            ) from error

    def wrong_credentials(self, nkey_seed: str | None, answer: str) -> WrongCredentials:
        """The error for a broker that does not let this user in, with its `answer`; `nkey_seed` is the one tried."""
        servers = ", ".join(self.servers)
        if not self.password and nkey_seed is None and self.tls_cert is None:
            return WrongCredentials(
                f"{self.name} has no credentials for {servers}, and the broker requires them: give an nkey "
                "(HANDRAIL_NATS_NKEY_FILE) or a password (HANDRAIL_NATS_PASSWORD_FILE, HANDRAIL_NATS_PASSWORD)"
            )
        if nkey_seed is not None:
            refusal = f"does not know the nkey {public_key(nkey_seed)} of {self.nkey_seed_file}"
        else:
            refusal = f'knows no user "{self.user or self.name}" with these credentials'
        return WrongCredentials(
            f"the broker at {servers} {refusal} ({answer}): give it the newest ones, reload the broker if its "
            "configuration is older (handrail nats-permissions --reload), and see whether it is suspended"
        )

    def _tls(self) -> ssl.SSLContext | None:
        if not self.needs_tls:
            return None
        context = ssl.create_default_context(cafile=str(self.tls_ca) if self.tls_ca is not None else None)
        if self.tls_cert is not None:
            context.load_cert_chain(str(self.tls_cert), str(self.tls_key) if self.tls_key else None)
        return context
