"""`python -m demos.compliance`: see `demos.compliance.command`."""

import os
import sys

# gRPC warns about every fork while calls are in progress. Starting an agent forks, but an exec follows at once, so the
# warning does not apply. gRPC reads this variable when it is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

if __name__ == "__main__":
    from demos.compliance.command import main

    sys.exit(main())
