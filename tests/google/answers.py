"""What answers are made of."""

from typing import Final
from xml.sax.saxutils import escape

from starlette.exceptions import HTTPException
from starlette.responses import Response

_NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"


def refused(status: int, code: str, message: str, details: str = "") -> HTTPException:
    """An error of the interface, to raise."""
    more = f"<Details>{escape(details)}</Details>" if details else ""
    text = (
        f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>"
    )
    return HTTPException(status, text, {"Content-Type": "application/xml; charset=UTF-8"})


def elements(**values: object) -> str:
    return "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in values.items())


def document(root: str, *children: tuple[str, str]) -> Response:
    inner = "".join(f"<{name}>{text}</{name}>" for name, text in children)
    text = f"<?xml version='1.0' encoding='UTF-8'?><{root} xmlns='{_NAMESPACE}'>{inner}</{root}>"
    return Response(text, media_type="application/xml; charset=UTF-8")
