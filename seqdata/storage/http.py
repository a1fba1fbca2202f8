"""Ranged reads over HTTP that check the answer: its status, and which range it says it holds."""

from typing import Any

from fsspec.implementations.http import HTTPFileSystem

from seqdata.storage.faults import Refusal

WHOLE_BYTES = 64 << 20  # most that is read whole where a server ignores ranges: a table, but never a shard


class RangedHTTP(HTTPFileSystem):  # type: ignore[misc]
    """An HTTP file system whose ranged reads give the requested bytes or an error.

    fsspec's own returns whatever came: an error page, another range, or the whole file. A server that ignores ranges
    and sends whole files is accepted for files up to 64 MiB.
    """

    # fsspec calls these two by name, `_cat_file` for ranged reads and `_info` for sizes.
    async def _cat_file(self, url: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        ranged = {} if start is None or end is None else {"Range": f"bytes={start}-{end - 1}"}
        async with await self._request("get", url, ranged) as answer:
            if start is None or end is None:
                data: bytes = await answer.read()
                return data
            if answer.status != 206:
                return (await _small_body(answer))[start:end]
            if not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                sent = answer.headers.get("Content-Range", "none")
                raise OSError(f"bytes {start}-{end - 1} wanted, the server sent the range '{sent}'")
            data = await answer.read()
            return data

    async def _info(self, url: str, **_: Any) -> dict[str, Any]:
        async with await self._request("head", url, {}, tolerated=(403, 405, 501)) as answer:
            size = answer.headers.get("Content-Length") if answer.status == 200 else None
        if size is None:
            size = await self._size_by_range(url)
        return {"name": url, "size": int(size), "type": "file"}

    async def _size_by_range(self, url: str) -> str:
        """The size where HEAD is not answered, from the range that a GET of one byte brings."""
        async with await self._request("get", url, {"Range": "bytes=0-0"}, tolerated=(416,)) as answer:
            total = answer.headers.get("Content-Range", "").rpartition("/")[2]
            if answer.status == 200:
                total = answer.headers.get("Content-Length", "")
        if not total.isdigit():
            raise Refusal("the server does not say how large the file is")
        return str(total)

    async def _request(self, method: str, url: str, headers: dict[str, str], tolerated: tuple[int, ...] = ()) -> Any:
        """The answer to a request. Raises: FileNotFoundError on 404, aiohttp's error on any other bad status."""
        session = await self.set_session()
        # The body of a compressed answer has other offsets than the file.
        plain = {"Accept-Encoding": "identity"}
        options = {**self.kwargs, "headers": {**self.kwargs.get("headers", {}), **plain, **headers}}
        answer = await session.request(method, self.encode_url(url), allow_redirects=True, **options)
        try:
            if answer.status not in tolerated:
                self._raise_not_found_for_status(answer, url)
        except BaseException:
            answer.release()
            raise
        return answer


async def _small_body(answer: Any) -> bytes:
    """A whole body in place of the requested range. Raises: Refusal when it is huge."""
    size = answer.content_length
    if size is None or size > WHOLE_BYTES:
        raise Refusal("the server ignores byte ranges and sends whole files")
    data: bytes = await answer.read()
    return data
