"""P6: nobody can tell the names of replies to come: the broker sends an answer wherever a request says."""

from __future__ import annotations

from handrail.mesh.bus.reply_inbox import Answer, ReplyInbox


async def test_the_names_of_replies_can_not_be_foretold_p6() -> None:
    inboxes = [ReplyInbox("_INBOX_ledger") for _ in range(2)]
    names = [[inbox.expect(Answer("a.question")).rpartition(".")[2] for _ in range(1000)] for inbox in inboxes]
    assert all(len(name) == 16 for each in names for name in each)
    assert len({*names[0], *names[1]}) == 2000, "another connection of the same user got the same names"
    assert names[0] != sorted(names[0]), "whoever knows one name knows the next"
    assert inboxes[0].subject != inboxes[1].subject
