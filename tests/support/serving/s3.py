"""moto's S3 server on the loopback, with credentials that are worth nothing."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def s3_environment(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Point every S3 client at `endpoint`, away from any real account."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(name, value)


@contextmanager
def serve_s3(monkeypatch: pytest.MonkeyPatch, bucket: str) -> Iterator[str]:
    """The URL `s3://bucket` of an empty bucket; skips where moto or s3fs are absent."""
    pytest.importorskip("s3fs", reason="s3fs is not installed (pip install 's3fs>=2024.6')")
    server_module = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    # It prints a line for every request.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        s3_environment(monkeypatch, endpoint)
        import botocore.session

        botocore.session.get_session().create_client("s3", endpoint_url=endpoint).create_bucket(Bucket=bucket)
        yield f"s3://{bucket}"
    finally:
        server.stop()
