"""`postern fleet grant` and `grants open`, with no broker: what they make, where it goes, what is refused."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from agent import strict_json
from agent.cli import main
from agent.documents import Role
from agent.envelope import Envelope, Kind
from agent.fleet import notices
from agent.fleet.keyring import Keyring
from agent.fleet.notices import DEPOSITED
from agent.fleet.store import Store
from agent.jws import decoded, encoded
from agent.locker.office import purpose_of
from agent.page import seal
from agent.row_seal import BadPage
from tests.fleets import TENANT, ceremony, enrolled

LOCKER, ADDRESS = "locker-12", f"{TENANT}/locker-12"
CODES = {
    "jti": "g-1",
    "compartment": "a1",
    "parcel": "s10:RB473124829DE",
    "exp": 1_796_204_800,
    "code": "A" * 22,
    "selector": "29DE",
    "pin": "471102",
}


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    keyring = ceremony(tmp_path / "keys")
    enrolled(keyring, LOCKER)
    return keyring


def run(capsys: pytest.CaptureFixture[str], keyring: Keyring, *arguments: object, code: int = 0) -> Any:
    """What it prints as JSON, or in one line on standard error where it fails."""
    capsys.readouterr()
    words = ["fleet", *map(str, arguments), "--keys", str(keyring.folder), "--json"]
    assert main(words) == code
    said = capsys.readouterr()
    return said.err if code == 2 else json.loads(said.out)


# -- codes that the fleet signs -------------------------------------------------------------------


def test_a_code_names_the_parcel_as_the_locker_will(
    keyring: Keyring, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [
        run(capsys, keyring, "grant", "--locker", LOCKER, "--parcel", label, "--hours", 24)
        for label in ("RB473124829DE", "s10:RB473124829DE")
    ]
    assert {each["parcel"] for each in made} == {"s10:RB473124829DE"}
    assert len({each["grant"] for each in made}) == 2
    envelope = Envelope.parse(Kind.GRANT, made[0]["code"].encode())
    assert envelope.signers(keyring.root.public(Role.GRANT))
    claims = envelope.claims(Kind.GRANT)
    assert (claims.aud, claims.exp - claims.iat) == (ADDRESS, 86_400)


def test_the_longest_parcel_and_names_fit_into_a_code_or_are_refused(
    keyring: Keyring, capsys: pytest.CaptureFixture[str]
) -> None:
    longest = "locker-" + "x" * 33
    enrolled(keyring, longest)
    words = ("grant", "--locker", longest, "--compartment", "c" * 16, "--hours", 24, "--parcel")
    assert len(run(capsys, keyring, *words, "text:" + "x" * 32)["code"]) <= 512
    said = run(capsys, keyring, *words, "text:" + "x" * 75, code=2)
    assert "expected a grant of at most 512 bytes" in said


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_picture_of_a_code_is_for_its_owner_alone(
    keyring: Keyring, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    path = tmp_path / f"code{suffix}"
    run(capsys, keyring, "grant", "--locker", LOCKER, "--compartment", "a1", "--hours", 1, "--qr", path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes().startswith(b"<?xml" if suffix == ".svg" else b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--locker", "locker-13", "--parcel", "x"), "expected one of the enrolled devices locker-12"),
        (("--locker", LOCKER), "expected a parcel or a compartment"),
        (("--locker", LOCKER, "--compartment", "A 1"), "String should match pattern"),
        (("--locker", LOCKER, "--parcel", "x", "--qr", "code.gif"), "ends in .svg or .png, got 'code.gif'"),
    ],
)
def test_a_mistake_is_named_and_makes_no_code(
    keyring: Keyring, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert said in run(capsys, keyring, "grant", *words, "--hours", 1, code=2)


@pytest.mark.parametrize("hours", ["0", "-1", "1441", "nan", "soon"])
def test_a_code_is_good_for_some_hours_and_not_for_ever(keyring: Keyring, hours: str) -> None:
    words = ["grant", "--locker", LOCKER, "--parcel", "x", "--keys", str(keyring.folder)]
    with pytest.raises(SystemExit):
        main(["fleet", *words, f"--hours={hours}"])


def test_a_folder_from_before_lockers_gets_both_keys_by_rotating(
    keyring: Keyring, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (keyring.folder / "seal-1.key").unlink()
    assert run(capsys, keyring, "keys", "show")["seal_key"] is None
    deposit = ("grants", "open", "--store", tmp_path / "none", "--out", tmp_path / "out")
    assert "`keys rotate seal` makes one" in run(capsys, keyring, *deposit, code=2)
    made = run(capsys, keyring, "keys", "rotate", "seal")["seal_key"]
    assert len(decoded(made)) == 32
    assert run(capsys, keyring, "keys", "rotate", "seal")["seal_key"] != made


# -- codes that lockers make ----------------------------------------------------------------------


def deposit(keyring: Keyring, key: X25519PublicKey | None = None, **changes: Any) -> dict[str, Any]:
    """The entry of a deposit whose codes are sealed for the fleet, or for another key."""
    key = key or keyring.seals()[0].public_key()
    sealed = seal(strict_json.dumps({**CODES, **changes}), key, purpose_of(ADDRESS, "g-1"))
    return {
        "id": "e1-7",
        "source": f"/postern/{ADDRESS}",
        "type": DEPOSITED,
        "subject": "s10:RB473124829DE",
        "data": {"compartment": "a1", "grant": "g-1", "sealed": encoded(sealed)},
    }


def test_codes_are_opened_with_the_key_of_now_and_with_those_before(keyring: Keyring) -> None:
    old = deposit(keyring)
    keyring.renew("seal")
    for entry in (old, deposit(keyring)):
        notice = notices.read(entry, keyring.seals())
        assert notice is not None
        assert (notice.code, notice.typed) == ("PICKUP:" + "A" * 22, "29DE 471102")
        assert "471102" not in repr(notice), "what is shown of it in a traceback opens nothing"


def test_what_is_no_deposit_or_has_no_codes_is_passed_over(keyring: Keyring) -> None:
    entry = deposit(keyring)
    assert notices.read({**entry, "type": "postern.locker.collected"}, keyring.seals()) is None
    assert notices.read({**entry, "data": {"sealed": None, "grant": None}}, keyring.seals()) is None
    assert notices.read({**entry, "data": []}, keyring.seals()) is None


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (lambda ring: deposit(ring, X25519PrivateKey.generate().public_key()), "one of our 1 seal keys"),
        (lambda ring: {**deposit(ring), "source": f"/postern/{TENANT}/locker-13"}, "one of our 1 seal keys"),
        (lambda ring: {**deposit(ring), "subject": "s10:another"}, "for what the entry says"),
        (lambda ring: deposit(ring, jti="g-2"), "for what the entry says"),
        (lambda ring: deposit(ring, pin="12345\n"), "pin: String should match"),
        (lambda ring: deposit(ring, more="x"), "more: Extra inputs"),
        (lambda ring: {**deposit(ring), "data": {"sealed": "!", "grant": "g-1"}}, "base64url"),
    ],
)
def test_codes_that_are_not_what_they_should_be_are_refused_without_being_shown(
    keyring: Keyring, entry: Any, said: str
) -> None:
    with pytest.raises(BadPage) as bad:
        notices.read(entry(keyring), keyring.seals())
    assert said in str(bad.value)
    assert "12345" not in str(bad.value)


def test_all_deposits_of_a_store_are_opened_into_one_file(
    keyring: Keyring, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [deposit(keyring), deposit(keyring, X25519PrivateKey.generate().public_key())]
    store = Store(tmp_path / "fleet.db")
    with store.transaction():
        ledger = store.ledger(LOCKER, "e1", 0.0)
        for number, entry in enumerate(entries, start=1):
            line = json.dumps(entry, separators=(",", ":")).encode()
            store.keep(ledger.id, number, bytes([number]) * 32, line, "custody", 0)
    store.close()
    out = tmp_path / "notices"
    out.write_text("from yesterday")
    words = ("grants", "open", "--store", tmp_path / "fleet.db", "--out", out)
    told = run(capsys, keyring, *words, code=4)
    assert (told["opened"], told["unread"]) == (1, 1)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert json.loads(out.read_text())["typed"] == "29DE 471102"
    assert run(capsys, keyring, *words, "--device", "locker-13")["opened"] == 0


def test_notices_need_the_keys_that_open_them(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["fleet", "collect", "--host", "x", "--notices", str(tmp_path / "notices")]) == 2
    assert "--notices: expected --keys as well, got none" in capsys.readouterr().err
