"""What S3 or the way to it answered, in words that say what to do; keys and tokens never stand in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from boto3.exceptions import Boto3Error, RetriesExceededError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as NoConnection

from edfi_dagster.config.lake import S3Lake as S3Settings
from edfi_dagster.lake.store import LakeError

_SIGN_IN = (
    "give lake.access_key_id and lake.secret_access_key, or run where AWS credentials are found "
    "(a role of the machine, AWS_PROFILE, AWS_ACCESS_KEY_ID)"
)
_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    ProfileNotFound,
    SSOError,
)
_BAD_KEYS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "ExpiredToken",
    "ExpiredTokenException",
    "TokenRefreshRequired",
    "AuthFailure",
    "InvalidSecurity",
    "NotSignedUp",
}
_ELSEWHERE = {
    "PermanentRedirect",
    "301",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}
_DENIED = {"AccessDenied", "AllAccessDisabled", "AccountProblem", "403"}


@contextmanager
def explained(settings: S3Settings, uri: str) -> Iterator[None]:
    """Raise LakeError for what botocore raises about the object or folder ``uri``."""
    try:
        yield
    except RetriesExceededError as error:
        raise LakeError(f"lake {uri}: {_unreachable(settings, error.last_exception)}") from error
    except ClientError as error:
        raise LakeError(f"lake {uri}: {_refused(settings, error)}") from error
    except _NO_CREDENTIALS as error:
        raise LakeError(f"lake {uri}: no credentials ({type(error).__name__}); {_SIGN_IN}") from error
    except (HTTPClientError, NoConnection, IncompleteReadError) as error:
        raise LakeError(f"lake {uri}: {_unreachable(settings, error)}") from error
    except (BotoCoreError, Boto3Error) as error:
        raise LakeError(f"lake {uri}: {type(error).__name__}; check the lake block") from error


def _unreachable(settings: S3Settings, error: BaseException) -> str:
    where, check = settings.endpoint_url, "lake.endpoint_url"
    if where is None:
        where, check = "S3", "lake.region"
    return f"{where} cannot be reached ({type(error).__name__}); check {check}, the network and its proxies"


def _refused(settings: S3Settings, error: ClientError) -> str:
    """What a refused request means and what to do about it."""
    answer, about = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
    code, status = str(answer.get("Code", "")), about.get("HTTPStatusCode", 0)
    if code == "NoSuchBucket":
        return f"there is no bucket {settings.bucket}; create it or correct lake.bucket"
    if code in {"NoSuchKey", "404"}:
        return "there is no such file; was it deleted?"
    if code in _ELSEWHERE:
        return f"bucket {settings.bucket} lies in another region; {_region(error)}"
    if code in _BAD_KEYS:
        return f"the credentials are refused ({code}); {_SIGN_IN}"
    if code == "RequestTimeTooSkewed":
        return "the clock of this machine is wrong, which S3 does not accept; set it"
    if code.startswith("KMS."):
        return f"the key of the encryption is refused ({code}); check lake.kms_key_id"
    if code in _DENIED:
        return f"access denied to {_action(error)}; {_grants(settings)}"
    if status >= 500 or code in {"SlowDown", "Throttling", "RequestLimitExceeded"}:
        return f"S3 still answers {code} ({status}) after every pause; run again later"
    return f"{_action(error)} failed with {code} ({status}); check the lake block"


def _region(error: ClientError) -> str:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = error.response.get("Error", {}).get("Region") or headers.get("x-amz-bucket-region")
    return f"write lake.region: {region}" if region else "correct lake.region"


def _grants(settings: S3Settings) -> str:
    grants = (
        "the lake needs s3:PutObject, s3:AbortMultipartUpload, s3:GetObject and s3:DeleteObject on "
        f"{settings.bucket}/{settings.prefix + '/' if settings.prefix else ''}* and s3:ListBucket on the bucket"
    )
    if settings.encryption == "aws:kms":
        grants += ", kms:GenerateDataKey and kms:Decrypt on the key"
    return grants


def _action(error: ClientError) -> str:
    """The action that a policy has to allow."""
    named = {
        "ListObjectsV2": "ListBucket",
        "CreateMultipartUpload": "PutObject",
        "UploadPart": "PutObject",
        "CompleteMultipartUpload": "PutObject",
        "HeadObject": "GetObject",
    }
    return f"s3:{named.get(error.operation_name, error.operation_name)}"
