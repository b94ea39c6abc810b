"""What the settings of a coordinator say about tokens, and mistakes that end it at its start."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from handrail.cli.commands.coordinator import coordinator_settings, token_settings
from handrail.cli.exit_codes import CommandError
from handrail.coordinator.api.tokens import TokenVerifier
from handrail.coordinator.api.tokens.rules import ClaimNames, Rules
from handrail.coordinator.api.tokens.settings import TokenSettings
from handrail.mesh.setting import Settings
from tests.support.tokens import jwk, key_set, private_key


def test_without_settings_the_defaults_of_the_verification_hold() -> None:
    assert token_settings(Settings({}, {})) == TokenSettings()


def test_each_setting_reaches_the_verification() -> None:
    found = token_settings(
        Settings(
            {},
            {
                "HANDRAIL_JWT_ISSUER": "https://id.example.com",
                "HANDRAIL_JWT_AUDIENCE": "api",
                "HANDRAIL_JWT_ALGORITHMS": "ES256",
                "HANDRAIL_JWT_CLAIMS": "subject=email,roles=realm_access.roles",
                "HANDRAIL_JWT_REQUIRED_CLAIMS": "jti,iat",
                "HANDRAIL_JWT_MAX_LIFETIME": "1h",
                "HANDRAIL_JWT_KEY_SET": "https://id.example.com/keys",
                "HANDRAIL_JWT_KEY_SET_CA": "/ca.pem",
                "HANDRAIL_JWT_KEY_SET_REFRESH": "1m",
                "HANDRAIL_JWT_KEY_SET_COOLDOWN": "20s",
                "HANDRAIL_JWT_KEY_SET_STALE_AFTER": "2h",
                "HANDRAIL_JWT_REVOCATIONS": "/revoked",
            },
        )
    )
    assert found == TokenSettings(
        rules=Rules(
            issuer="https://id.example.com",
            audience="api",
            max_lifetime=timedelta(hours=1),
            required=("jti", "iat"),
            names=ClaimNames(subject="email", roles="realm_access.roles"),
        ),
        algorithms=("ES256",),
        key_set="https://id.example.com/keys",
        key_set_ca=Path("/ca.pem"),
        refresh=timedelta(minutes=1),
        cooldown=timedelta(seconds=20),
        stale_after=timedelta(hours=2),
        revocations=Path("/revoked"),
    )


def test_a_coordinator_needs_a_key_or_a_key_set() -> None:
    with pytest.raises(CommandError, match=r"--jwt-public-keys .* or a key set with --jwt-key-set"):
        coordinator_settings(Settings({}, {}))
    wanted = coordinator_settings(Settings({"jwt_key_set": "https://id.example.com/keys"}, {}))
    assert wanted.server.tokens.key_set == "https://id.example.com/keys"


def test_a_file_that_can_not_be_used_ends_the_start(tmp_path: Path) -> None:
    good, bad = tmp_path / "keys.json", tmp_path / "bad"
    good.write_bytes(key_set(jwk(private_key("ES256"), "a")))
    bad.write_text("whatever")
    assert TokenVerifier(TokenSettings(key_set=str(good))).keys.generation == 1
    with pytest.raises(ValueError, match="bad is not a JSON Web Key Set"):
        TokenVerifier(TokenSettings(key_set=str(bad)))
    with pytest.raises(ValueError, match="bad is malformed: line 1"):
        TokenVerifier(TokenSettings(key_set=str(good), revocations=bad))
    with pytest.raises(ValueError, match="can't be read: No such file"):
        TokenVerifier(TokenSettings(key_set=str(good), revocations=tmp_path / "nowhere"))
