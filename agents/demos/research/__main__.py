"""`python -m demos.research`: see `demos.research.command`."""

import os
import sys

# Agents are started while calls to the coordinator are under way, and each time gRPC would print that it is not
# prepared for a fork: an exec follows at once. It reads this variable when it is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

if __name__ == "__main__":
    from demos.research.command import main

    sys.exit(main())
