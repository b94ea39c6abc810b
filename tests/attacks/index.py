"""The index of flows: somebody on the network asks visibility past the coordinator, and sees what nobody granted."""

from __future__ import annotations

import grpc
import grpc.aio

from handrail.index.v1 import index_service_pb2 as pb
from handrail.index.v1.index_service_pb2_grpc import IndexServiceStub
from handrail.mesh.shared_secret import new_secret
from tests.attacks.attack import attack, succeeded
from tests.attacks.installation import Installation
from tests.support.api import bearer

EVERYTHING = pb.Query(scope=pb.Scope(every_type=True), page_size=10)


@attack("122", "a stranger asks visibility for every flow, past the coordinator", mutant="p6_anybody_asks_the_index")
async def ask_without_the_secret(target: Installation) -> str:
    given = {
        "nothing": (),
        "a person's token": bearer(target.token("olga", "operator")),
        "a made-up secret": bearer(new_secret()),
        "an empty secret": bearer(""),
    }
    async with grpc.aio.insecure_channel(target.index) as channel:
        stub = IndexServiceStub(channel)
        for name, metadata in given.items():
            calls = (
                stub.ListFlows(pb.ListFlowsRequest(query=EVERYTHING), metadata=metadata, timeout=20),
                stub.ListApprovals(pb.ListApprovalsRequest(query=EVERYTHING), metadata=metadata, timeout=20),
                stub.CountFlows(pb.CountFlowsRequest(scope=EVERYTHING.scope), metadata=metadata, timeout=20),
            )
            told = {(await call.code()).name for call in calls}
            if told != {"UNAUTHENTICATED"}:
                succeeded(f"with {name} it is told {', '.join(sorted(told))}")
    return f"UNAUTHENTICATED, with {', '.join(given)}"
