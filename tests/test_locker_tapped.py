"""T1 at a locker of static secrets: whatever was said on its wires, said once more by somebody else."""

from pathlib import Path

import pytest

from simulators.line import LineScanner
from tests.locker_site import BADGE, COURIER, SIZES, LockerSite

LABEL = "RB473124829DE"
TOKEN = "7Qm2Zx90KfLw3TbVnRc8Hy"

MORE = """
[policy.deposit]
sets = [["badge", "static"]]

[unit.token]
kind = "line"
role = "token"
port = "{dev}/token"
"""

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]


async def test_a_recording_of_badge_token_and_scans_opens_no_second_compartment(tmp_path: Path) -> None:
    async with LockerSite(tmp_path, more=MORE) as site:
        token = site.plug(LineScanner(site.dev / "token"))
        site.add(COURIER, "static", TOKEN)

        async def logged_in() -> None:
            shown, opened = len(site.of("identity.factor_shown")), len(site.of("locker.session_opened"))
            site.badge.scan(BADGE)
            await site.count("identity.factor_shown", shown + 1)
            token.scan(TOKEN)
            await site.count("locker.session_opened", opened + 1)

        await site.start()
        await logged_in()
        await site.deposit(LABEL)
        site.gun.scan("POSTERN:END")
        await site.count("locker.session_closed", 1)
        assert site.pulses == 1

        for replayed in (1, 2):
            await logged_in()
            site.gun.scan("POSTERN:SIZE:S")
            site.gun.scan(LABEL)
            site.gun.scan("POSTERN:RETRIEVE")
            await site.count("locker.refused", 2 * replayed)
            site.gun.scan("POSTERN:END")
            await site.count("locker.session_closed", 1 + replayed)
        reasons = [entry["data"]["reason"] for entry in site.of("locker.refused")]
        assert reasons == ["already_here", "not_enough_factors"] * 2
        assert len(site.of("locker.session_opened")) == 3, "a static secret on an open wire is worth level 1"
        token.scan(TOKEN)
        await site.count("identity.factor_shown", 4)
        assert len(site.of("locker.session_opened")) == 3, "and the token alone is worth nothing"
        assert (site.pulses, all(site.door(name).shut for name in SIZES)) == (1, True)
