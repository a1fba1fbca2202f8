"""Servers on the loopback for tests: HTTP with ranges that misbehaves on order, and moto's S3."""

from tests.support.serving.http import Fault, FileServer, serve
from tests.support.serving.s3 import serve_s3

__all__ = ["Fault", "FileServer", "serve", "serve_s3"]
