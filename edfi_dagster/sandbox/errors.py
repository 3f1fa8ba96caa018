"""Refusals: problem details as ODS/API 7.2 and later write them, plain messages as all before it do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import uuid4

import msgspec
from starlette.responses import Response

from edfi_dagster.sandbox.generations import ErrorStyle

_JSON = "application/json; charset=utf-8"
NO_ROUTE = "no-route"


class ApiError(Exception):
    """An answer other than success: everything a problem document says."""

    def __init__(
        self,
        status: int,
        kind: str,
        title: str,
        detail: str,
        *,
        errors: Sequence[str] = (),
        validation_errors: Mapping[str, Sequence[str]] | None = None,
        headers: Mapping[str, str] | None = None,
        middleware: bool = False,
    ) -> None:
        super().__init__(f"{status} {kind}: {detail} {' '.join(errors)}".rstrip())
        self.status = status
        self.kind = kind
        self.title = title
        self.detail = detail
        self.errors = list(errors)
        self.validation_errors = {name: list(texts) for name, texts in (validation_errors or {}).items()}
        self.headers = dict(headers or {})
        self.middleware = middleware

    def response(self, style: ErrorStyle = "problem", correlation_id: str | None = None) -> Response:
        """The answer in the form of a generation. A path that leads nowhere has no body before 7.2."""
        if style != "problem" and self.kind == NO_ROUTE:
            return Response(status_code=self.status, headers=self.headers)
        correlation = correlation_id or str(uuid4())
        content = self._problem(correlation) if style == "problem" else self._message()
        if style == "correlated":
            content["correlationId"] = correlation
        # Controllers send problems as plain JSON, middleware as problem+json.
        media = "application/problem+json" if style == "problem" and self.middleware else _JSON
        text = msgspec.json.format(msgspec.json.encode(content), indent=2)
        return Response(text, self.status, headers={**self.headers, "content-type": media})

    def _problem(self, correlation: str) -> dict[str, object]:
        problem: dict[str, object] = {
            "detail": self.detail,
            "type": f"urn:ed-fi:api:{'not-found' if self.kind == NO_ROUTE else self.kind}",
            "title": self.title,
            "status": self.status,
            "correlationId": correlation,
        }
        if self.validation_errors:
            problem["validationErrors"] = self.validation_errors
        if self.errors:
            problem["errors"] = self.errors
        return problem

    def _message(self) -> dict[str, object]:
        if self.validation_errors:
            state = {f"request{path[1:]}": texts for path, texts in self.validation_errors.items()}
            return {"message": "The request is invalid.", "modelState": state}
        return {"message": " ".join(self.errors) or self.detail}


def bad_parameters(*errors: str, detail: str = "The request construction was invalid.") -> ApiError:
    kind = "bad-request:parameter-validation-failed"
    return ApiError(400, kind, "Parameter Validation Failed", detail, errors=errors)


def bad_request(*errors: str) -> ApiError:
    detail = "The request could not be processed. See 'errors' for details."
    return ApiError(400, "bad-request", "Bad Request", detail, errors=errors)


def bad_data(validation_errors: Mapping[str, Sequence[str]]) -> ApiError:
    detail = "Data validation failed. See 'validationErrors' for details."
    kind = "bad-request:data-validation-failed"
    return ApiError(400, kind, "Data Validation Failed", detail, validation_errors=validation_errors)


def bad_id(value: str) -> ApiError:
    return bad_data({"$.id": [f"The value '{value}' is not valid."]})


def key_change_refused(name: str) -> ApiError:
    return ApiError(
        400,
        "bad-request:data-validation-failed:key-change-not-supported",
        "Key Change Not Supported",
        f"Identifying values for the {name} resource cannot be changed. Delete and recreate the resource item instead.",
    )


def not_found(detail: str = "The specified resource could not be found.") -> ApiError:
    return ApiError(404, "not-found", "Not Found", detail)


def no_such_route() -> ApiError:
    return ApiError(
        404, NO_ROUTE, "Not Found", "The specified data resource could not be found.", middleware=True
    )


def method_not_allowed(allow: str) -> ApiError:
    return ApiError(
        405,
        "method-not-allowed",
        "Method Not Allowed",
        "The request construction was invalid.",
        errors=["The HTTP method is not allowed on this resource."],
        headers={"Allow": allow},
    )


def snapshot_gone() -> ApiError:
    return ApiError(410, "snapshots:gone", "Gone", "Snapshot not available.")


def snapshot_is_read_only() -> ApiError:
    return ApiError(
        405,
        "snapshots:method-not-allowed",
        "Method Not Allowed with Snapshots",
        "Snapshots are read-only.",
        errors=["The header that selects a snapshot was sent with a write request."],
        headers={"Allow": "GET"},
    )


def unresolved_reference(name: str) -> ApiError:
    return ApiError(
        409,
        "data-conflict:unresolved-reference",
        "Unresolved Reference",
        f"The referenced '{name}' resource does not exist.",
    )


def still_referenced(name: str) -> ApiError:
    return ApiError(
        409,
        "data-conflict:dependent-item-exists",
        "Dependent Item Exists",
        f"The requested action cannot be performed because this item is referenced by an existing '{name}' item.",
    )


def key_taken(name: str) -> ApiError:
    return ApiError(
        409,
        "data-conflict:non-unique-identity",
        "Identifying Values Are Not Unique",
        "The identifying value(s) of the item are the same as another item that already exists.",
        errors=[f"A primary key conflict occurred when attempting to create or update a record in '{name}'."],
    )


def concurrent_write() -> ApiError:
    return ApiError(
        409,
        "data-conflict:multi-user-conflict",
        "Multi-User Conflict",
        "The item was modified by another request while this one was in progress.",
    )


def etag_mismatch() -> ApiError:
    return ApiError(
        412,
        "optimistic-lock-failed",
        "Optimistic Lock Failed",
        "The item has been modified by another user.",
        errors=[
            "The resource item's etag value does not match what was specified in the 'If-Match' request header."
        ],
    )


def unsupported_media_type() -> ApiError:
    return ApiError(
        415,
        "unsupported-media-type",
        "Unsupported Media Type",
        "The media type of the request is not supported.",
        middleware=True,
    )


def access_denied(action: str, path: str) -> ApiError:
    return ApiError(
        403,
        "security:authorization:access-denied:action"
        if action != "resource"
        else "security:authorization:access-denied:resource",
        "Authorization Denied",
        "Access to the resource could not be authorized.",
        errors=[f"The API client's assigned claim set does not grant the access needed to '/{path}'."],
    )


def no_relationship() -> ApiError:
    """403 for one record: the key's organizations have no relationship with it."""
    return ApiError(
        403,
        "security:authorization:access-denied:resource",
        "Authorization Denied",
        "Access to the requested data could not be authorized.",
        errors=[
            "No relationships have been established between the caller's education organization id claims"
            " and the resource item's values."
        ],
    )


def profile_wanted(content_types: Sequence[str]) -> ApiError:
    listed = "', '".join(content_types)
    return ApiError(
        403,
        "security:data-policy:incorrect-usage",
        "Data Policy Failure Due to Incorrect Usage",
        "A data policy failure was encountered. The request was not constructed correctly for the data policy that has"
        " been applied to this data for the caller.",
        errors=[
            "Based on profile assignments, one of the following profile-specific content types is required when"
            f" requesting this resource: '{listed}'"
        ],
    )


def wrong_profile(error: str) -> ApiError:
    return ApiError(
        400,
        "profile:invalid-profile-usage",
        "Invalid Profile Usage",
        "The request construction was invalid with respect to usage of a data policy.",
        errors=[error],
    )


def feature_disabled(feature: str) -> ApiError:
    return ApiError(404, "feature-disabled", "Feature Disabled", f"The {feature} feature is disabled.")


def unexpected() -> ApiError:
    return ApiError(500, "system", "System Error", "An unexpected problem has occurred.")


def unauthenticated(error: str) -> ApiError:
    return ApiError(
        401,
        "security:authentication",
        "Authentication Failed",
        "The caller could not be authenticated.",
        errors=[error],
        middleware=True,
    )


def too_many_tokens() -> ApiError:
    return ApiError(
        429,
        "security:authentication:too-many-tokens",
        "Too Many Access Tokens",
        "The caller has too many active access tokens. Use the tokens already issued until they expire.",
    )
