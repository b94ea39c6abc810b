"""The credentials of the broker's users, and what else is kept of each user between two generated configurations.

    credentials/<user>/nkey            the seed of its nkey
    credentials/<user>/nkey.former     the public key of its former nkey, which stays valid until it is retired
    credentials/<user>/password        its password, if it has no nkey or still has both
    credentials/<user>/password.hash   the bcrypt hash of the password, as the broker's configuration has it
    credentials/<user>/place           its place in its group of accounts
    credentials/<user>/flow-types      of a reader: the flow types that it may read, one a line
    credentials/<user>/suspended       marks an agent or reader that the broker must not let in

Users never share a folder, so that each process can be given the folder of its own user and no other.
"""

from handrail.cli.credentials.folder import Configuration, CredentialsFolder
from handrail.cli.credentials.user_folder import UserFolder

__all__ = ["Configuration", "CredentialsFolder", "UserFolder"]
