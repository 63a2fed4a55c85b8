"""Every code of S3 and HTTP has the class that says whether it can change by itself, and the remedy in its message."""

from __future__ import annotations

import httpx
import pytest
from penstock_files_object.error_mapping import FileChangedError, MissingFileError, RequestContext, response_error
from penstock_sdk import AuthenticationError, ConfigError, ConnectorError, SourceContractError, TransientError

S3, HTTP = "s3://bucket/key", "https://files.example.com/a.csv"


@pytest.mark.parametrize(
    ("path", "status", "code", "kind", "words"),
    [
        (S3, 404, "NoSuchBucket", ConfigError, "has no such bucket; correct paths or endpoint"),
        (S3, 404, "NoSuchKey", MissingFileError, "correct spec.config.streams.paths"),
        (S3, 403, "AccessDenied", AuthenticationError, "grant s3:GetObject"),
        (S3, 403, "InvalidAccessKeyId", AuthenticationError, "does not know the key: correct accessKeyId"),
        (S3, 403, "SignatureDoesNotMatch", AuthenticationError, "the secretAccessKey does not match"),
        (S3, 400, "ExpiredToken", AuthenticationError, "put a new accessKeyId, secretAccessKey and sessionToken"),
        (S3, 400, "InvalidToken", AuthenticationError, "the sessionToken does not belong to these keys"),
        (S3, 301, "PermanentRedirect", ConfigError, "spec.config.region: .*set it to the bucket's region"),
        (S3, 400, "AuthorizationHeaderMalformed", ConfigError, "spec.config.region"),
        (S3, 403, "RequestTimeTooSkewed", ConfigError, "set the node's clock"),
        (S3, 403, "InvalidObjectState", SourceContractError, "in an archive .*restore it"),
        (S3, 503, "SlowDown", TransientError, "answered 503 .SlowDown."),
        (S3, 500, "InternalError", TransientError, "answered 500"),
        (S3, 501, "NotImplemented", SourceContractError, "correct the server in spec.config"),
        (HTTP, 401, "", AuthenticationError, "correct token, or username and password"),
        (HTTP, 403, "", AuthenticationError, "correct token, or username and password"),
        (HTTP, 404, "", MissingFileError, "there is no such file"),
        (HTTP, 410, "", MissingFileError, "there is no such file"),
        (HTTP, 407, "", ConfigError, "the proxy between requires credentials"),
        (HTTP, 412, "", FileChangedError, "the next attempt reads the new version"),
        (HTTP, 416, "", FileChangedError, "the next attempt reads the new version"),
        (HTTP, 429, "", TransientError, "answered 429"),
        (HTTP, 503, "", TransientError, "answered 503"),
    ],
)
def test_a_code_says_what_to_do(path: str, status: int, code: str, kind: type[ConnectorError], words: str) -> None:
    response = httpx.Response(status, request=httpx.Request("GET", "https://s3.example.com/"))
    body = f"<Error><Code>{code}</Code></Error>".encode() if code else b""
    error = response_error(
        response, body, path, RequestContext("https://s3.example.com", "us-east-1", with_credentials=True)
    )
    assert isinstance(error, kind)
    assert isinstance(error, TransientError) == issubclass(kind, TransientError)
    with pytest.raises(kind, match=words):
        raise error
