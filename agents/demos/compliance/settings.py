"""The agents' settings, from environment variables; each is read when it is first needed."""

import json
import os
import sysconfig
from pathlib import Path

from demos.compliance.installed import Environment

ENVIRONMENTS = "COMPLIANCE_ENVIRONMENTS"
POLICY = "COMPLIANCE_POLICY"
NAMES = "COMPLIANCE_NAMES"
REGISTER = "COMPLIANCE_REGISTER"

HERE = "here"
"""The name of the environment that the agents run in."""

SHIPPED_POLICY = Path(__file__).with_name("policy.yaml")
SHIPPED_NAMES = Path(__file__).with_name("names.yaml")


def environments() -> dict[str, Environment]:
    """COMPLIANCE_ENVIRONMENTS: a JSON object from names to folders of installed packages; `here` if it is not set.

    Agents read only these folders, even if an event names another one.
    """
    value = os.environ.get(ENVIRONMENTS)
    folders: dict[str, str] = json.loads(value) if value else {HERE: sysconfig.get_path("purelib")}
    return {name: Environment(name, Path(folder)) for name, folder in folders.items()}


def policy_path() -> Path:
    """COMPLIANCE_POLICY: the policy on licences; the shipped one if it is not set."""
    return Path(os.environ.get(POLICY) or SHIPPED_POLICY)


def names_path() -> Path:
    """COMPLIANCE_NAMES: the list of names; the shipped one if it is not set."""
    return Path(os.environ.get(NAMES) or SHIPPED_NAMES)


def register_path() -> Path:
    """COMPLIANCE_REGISTER: the SQLite file of approvals; `register.sqlite` in the working directory if not set."""
    return Path(os.environ.get(REGISTER) or "register.sqlite")
