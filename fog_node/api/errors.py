"""How the API says no: `{"error": {"field", "problem", "remedy"}}`, whatever the cause."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from fog_node.errors import ApiError, LedgerError, PrunedError, StoreError
from fog_node.protocol.errors import ProtocolError

log = logging.getLogger(__name__)

RETRY_AFTER_S = 2
# For routes that do not answer in JSON: FastAPI would say that their errors do not, either.
_JSON_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorView"}}}
JSON_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "Client Error", "content": _JSON_ERROR},
    "5XX": {"description": "Server Error", "content": _JSON_ERROR},
}
_ASK_AGAIN = "ask again in a moment; if it stays so, see the node's log"
_REMEDIES = {
    "bad_signature": "sign exactly these bytes with the key of the kid, for this chain id",
    "conflict": "ask /v1/signers/{kid} for the next number and sign anew",
    "full": "send it again after the next block",
    "implausible": "send readings within the enrolled channels, units and ranges",
    "malformed": "build it as fog_node/protocol/SPEC.md says",
    "revoked_device": "sign with a key that is not revoked",
    "role": "let a member sign it that holds the role",
    "rule": "compare with what is on the chain already",
    "sequence": "ask /v1/signers/{kid} for the next number and sign anew",
    "unknown_device": "have an operator enrol the signer first",
}
_STATUS_OF_CAUSE = {
    "conflict": HTTPStatus.CONFLICT,
    "full": HTTPStatus.SERVICE_UNAVAILABLE,
    "rule": HTTPStatus.CONFLICT,
    "sequence": HTTPStatus.CONFLICT,
}


class RequestError(ApiError):
    """A request that is answered with an error.

    Attributes:
        status: of HTTP.
        field: the parameter, header or part of the body at fault.
        problem: what is wrong with it.
        remedy: what to do about it.
        headers: further ones for the answer.
    """

    def __init__(
        self,
        status: HTTPStatus,
        field: str,
        problem: str,
        remedy: str,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(f"{field}: {problem}; {remedy}")
        self.status = status
        self.field = field
        self.problem = problem
        self.remedy = remedy
        self.headers = headers or {}

    def response(self) -> JSONResponse:
        """The answer."""
        error = {"field": self.field, "problem": self.problem, "remedy": self.remedy}
        return JSONResponse({"error": error}, self.status, self.headers)


def not_found(field: str, problem: str, remedy: str) -> RequestError:
    """404."""
    return RequestError(HTTPStatus.NOT_FOUND, field, problem, remedy)


def unprocessable(field: str, problem: str, remedy: str) -> RequestError:
    """422."""
    return RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, field, problem, remedy)


def of_protocol(error: ProtocolError) -> RequestError:
    """422 for what is not as the formats say."""
    return unprocessable(error.field, error.problem, error.remedy or _REMEDIES["malformed"])


def of_ledger(error: LedgerError) -> RequestError:
    """409, 422 or 503 for what the ledger refuses; its message is `field: problem; remedy`."""
    field, _, rest = str(error).partition(": ")
    problem, semicolon, remedy = rest.rpartition("; ")
    if not semicolon:
        problem, remedy = rest, _REMEDIES.get(error.cause, _REMEDIES["rule"])
    status = _STATUS_OF_CAUSE.get(error.cause, HTTPStatus.UNPROCESSABLE_ENTITY)
    headers = (
        {"Retry-After": str(RETRY_AFTER_S)} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    )
    return RequestError(status, field, problem, remedy, headers)


def install(app: FastAPI) -> None:
    """Make every error of `app` answer in this shape."""

    async def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestError)
        return error.response()

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return _of_parameter(request, error.errors()[0]).response()

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        status = HTTPStatus(error.status_code)
        problem = f"{request.method} {request.url.path[:200]} is answered with {status.phrase}"
        refusal = RequestError(status, "path", problem, "see /docs for what there is")
        refusal.headers = dict(error.headers or {})
        return refusal.response()

    async def store(_: Request, error: Exception) -> JSONResponse:
        log.error("api: %s", error)
        headers = {"Retry-After": str(RETRY_AFTER_S)}
        status = HTTPStatus.SERVICE_UNAVAILABLE
        return RequestError(status, "ledger", str(error), _ASK_AGAIN, headers).response()

    async def pruned(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, PrunedError)
        problem = f"the body of block {error.height} is no longer kept here"
        remedy = "ask a node that keeps all, or its archive: fogline proof get --archive DIR"
        return RequestError(HTTPStatus.GONE, "height", problem, remedy).response()

    async def defect(_: Request, __: Exception) -> JSONResponse:
        # The server logs it, with its traceback, once this is sent.
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        return RequestError(status, "server", "failed to answer", _ASK_AGAIN).response()

    app.add_exception_handler(RequestError, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(StoreError, store)
    app.add_exception_handler(PrunedError, pruned)
    app.add_exception_handler(Exception, defect)


def _of_parameter(request: Request, error: dict[str, Any]) -> RequestError:
    """Name the parameter and what it may be, from what pydantic and our OpenAPI say of it."""
    field = str(error["loc"][-1])
    if error["type"] == "missing":
        return unprocessable(field, "is missing", f"give {field}")
    schema = _schema(request, field)
    if {"minimum", "maximum"} <= schema.keys():
        remedy = f"give a whole number from {schema['minimum']} to {schema['maximum']}"
    else:
        message = str(error["msg"])
        remedy = message[0].lower() + message[1:]
    return unprocessable(field, f"is {str(error.get('input'))[:80]!r}", remedy)


def _schema(request: Request, name: str) -> dict[str, Any]:
    """The JSON schema of a parameter of the route that was asked for."""
    path = request.scope["route"].path
    operation = request.app.openapi()["paths"].get(path, {}).get(request.method.lower(), {})
    for parameter in operation.get("parameters", ()):
        if parameter["name"] == name:
            schema: dict[str, Any] = parameter["schema"]
            # An optional parameter is "this or null".
            return next((s for s in schema.get("anyOf", ()) if "minimum" in s), schema)
    return {}
