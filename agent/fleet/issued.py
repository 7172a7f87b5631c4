"""What has been issued to each device, so that nothing is ever issued twice under one version.

`<folder>/issued/<device>/` holds the newest envelope of each document by its name, the sealed pages by their
hash, and for each bundle how its pages were laid. Nothing in it is secret, and it cannot be made again:
without it versions would start anew, and devices would refuse them.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent import keyfile
from agent.documents import Document, read
from agent.envelope import Envelope, Kind, Refused
from agent.fleet.keyring import KeyringError
from agent.fleet.sealing import Laid, LaidPage

EVERYBODY = "_tenant"
"""Where documents stand that are for all devices of the tenant; no device can have this name."""


class Issued:
    """The files of one folder of keys."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "issued"

    def document(self, device: str, name: str) -> Document[Any] | None:
        """The newest of a name. Raises KeyringError for a file that is none."""
        path = self._path(device, name)
        if not path.exists():
            return None
        kind = Kind(name.partition("/")[0])
        try:
            envelope = Envelope.parse(kind, path.read_bytes())
            signed_by = tuple(each.kid for each in envelope.jws.signatures)
            return read(kind, envelope, signed_by, envelope.claims(kind))
        except Refused as refused:
            raise KeyringError(f"{path}: {refused}") from refused

    def keep(self, device: str, name: str, raw: bytes) -> None:
        keyfile.write(self._path(device, name), raw)

    def keep_wish(self, device: str, text: str) -> None:
        keyfile.write(self._folder / device / "wish.toml", text.encode())

    def wish(self, device: str) -> str | None:
        """The last config that was more than a question."""
        path = self._folder / device / "wish.toml"
        return path.read_text() if path.exists() else None

    def sequence(self, device: str, kid: str) -> int:
        """The next sequence of a key that commands this device; from now on it is taken."""
        path = self._folder / device / f"{kid}.seq"
        number = int(path.read_text()) + 1 if path.exists() else 1
        keyfile.write(path, str(number).encode())
        return number

    def withdrawn(self) -> dict[str, int]:
        """When each grant was taken back that revocations still name, in seconds since 1970."""
        path = self._folder / EVERYBODY / "withdrawn.json"
        found: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def keep_withdrawn(self, since: Mapping[str, int]) -> None:
        keyfile.write(self._folder / EVERYBODY / "withdrawn.json", json.dumps(since).encode())

    # -- bundles ----------------------------------------------------------------------------------

    def laid(self, device: str, kind: str) -> Laid | None:
        path = self._folder / device / f"{kind}.json"
        if not path.exists():
            return None
        tree = json.loads(path.read_text())
        pages = tuple(LaidPage(**each, raw=self.page(device, each["sha256"])) for each in tree.pop("pages"))
        return Laid(**tree, pages=pages)

    def keep_laid(self, device: str, laid: Laid) -> None:
        """The pages first: what names them comes when they are there."""
        for each in laid.pages:
            if not self._page(device, each.sha256).exists():
                keyfile.write(self._page(device, each.sha256), each.raw)
        tree = {
            **_without(asdict(laid), "pages"),
            "pages": [_without(asdict(each), "raw") for each in laid.pages],
        }
        keyfile.write(self._folder / device / f"{laid.kind}.json", json.dumps(tree).encode())

    def page(self, device: str, digest: str) -> bytes:
        """Raises KeyringError for a page that is missing."""
        try:
            return self._page(device, digest).read_bytes()
        except OSError as error:
            raise KeyringError(f"{self._page(device, digest)}: {error.strerror}") from error

    def forget_pages(self, device: str, but: Iterable[str]) -> None:
        """Delete pages that nothing names any more."""
        keep = set(but)
        for path in (self._folder / device / "pages").glob("*"):
            if path.name not in keep:
                path.unlink()

    def _path(self, device: str, name: str) -> Path:
        return self._folder / device / f"{name.replace('/', '-')}.jws"

    def _page(self, device: str, digest: str) -> Path:
        return self._folder / device / "pages" / digest


def _without(tree: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if key not in keys}
