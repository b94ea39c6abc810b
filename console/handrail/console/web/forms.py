"""Reading of forms: bounded, and only from the console's own pages."""

from __future__ import annotations

import hmac
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request

from handrail.console.web.sessions import Session

FORM_TOKEN = "form_token"
"""The hidden field by which a form proves that it is from a page of the same session."""

_MOST_BYTES = 64 << 10
_MOST_FIELDS = 100


async def read(request: Request) -> dict[str, str]:
    """The fields of a form. Raises HTTPException 413 if it is too large, 400 if it is not a form."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise HTTPException(413, "The form is larger than 64 KiB.")
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except ValueError:
        raise HTTPException(400, "The form can't be read.") from None


def require_own(fields: dict[str, str], session: Session) -> None:
    """Raises HTTPException 403 unless the form is from a page of this session."""
    given = fields.get(FORM_TOKEN, "")
    if not hmac.compare_digest(given.encode(), session.form_token.encode()):
        raise HTTPException(403, "The form is from an older session. Go back, reload the page, and send it again.")
