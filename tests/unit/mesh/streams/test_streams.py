import pytest

from handrail.mesh.errors import HandrailError
from handrail.mesh.streams import FLOW, LEASES, NEEDED_API_LEVEL, TIMER, check_level, stream_configs
from handrail.v1.error_reason_pb2 import ErrorReason


def test_a_server_too_old_is_refused_with_the_version_needed() -> None:
    with pytest.raises(HandrailError, match=r"nats-server 2\.12\.8 .* needs 2\.14 or newer") as refusal:
        check_level(NEEDED_API_LEVEL - 1, "2.12.8")
    assert refusal.value.reason == ErrorReason.ERROR_REASON_BROKER_TOO_OLD
    check_level(NEEDED_API_LEVEL, "2.14.0")
    check_level(NEEDED_API_LEVEL + 1, "2.15.1")


def test_only_the_stream_of_timers_takes_schedules() -> None:
    configs = stream_configs()
    assert [name for name, config in configs.items() if config["allow_msg_schedules"]] == [TIMER]
    assert configs[FLOW]["deny_delete"] is True
    purgeable = [name for name, each in configs.items() if each["deny_delete"] and not each["deny_purge"]]
    assert purgeable == [FLOW, LEASES]
    assert configs[FLOW]["allow_rollup_hdrs"] is False
