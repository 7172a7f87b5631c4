"""The one thread in which the fleet's store is read and written, for a collector on the event loop.

async with Clerk(path, signer, trusted) as clerk:
    outcome = await clerk.take(work, now)
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

from agent.fleet.audit import GRACE_S, Auditor, Outcome, Work
from agent.fleet.store import Store
from agent.note import SignerKey, VerifierKey

T = TypeVar("T")


class Clerk:
    """An Auditor that is awaited."""

    def __init__(
        self,
        path: Path,
        signer: SignerKey | None = None,
        trusted: Sequence[VerifierKey] = (),
        *,
        grace: float = GRACE_S,
    ) -> None:
        """`trusted` are devices' keys that the operator names; without a signer nothing is cosigned."""
        self._path, self._signer, self._trusted, self._grace = path, signer, trusted, grace
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fleet-store")
        self._auditor: Auditor | None = None

    async def __aenter__(self) -> Self:
        """Raises StoreFailed, and BadNote for a key that is no device's."""
        try:
            await self._do(self._open)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """After the job at hand, if there is one: what was begun is committed or rolled back."""
        try:
            await self._do(self._close)
        finally:
            self._thread.shutdown()

    async def take(self, work: Sequence[Work], now: float) -> Outcome:
        """As Auditor.take. A caller that is cancelled leaves it to be done all the same."""
        assert self._auditor is not None
        auditor = self._auditor
        return await self._do(lambda: auditor.take(work, now))

    async def _do(self, job: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, job)

    def _open(self) -> None:
        self._auditor = Auditor(Store(self._path), self._signer, grace=self._grace)
        for key in self._trusted:
            self._auditor.trust(key)

    def _close(self) -> None:
        if self._auditor is not None:
            self._auditor.store.close()
