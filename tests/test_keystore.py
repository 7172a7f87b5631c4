"""The keys of a device: where they may be, what is said about how well, and how they go."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.keyfile import BadKeyFile
from agent.keystore import NAMES, OPENING, Keystore, Level, needs_tpm
from agent.secret import Secret

KEY, OTHER = bytes(range(32)), bytes(range(32, 64))

DOCUMENTED_TPM = b"k6iUCUh0RJCQyvL8k8q1UyAAAAABAAAADAAAABAAAAC1lFmbWAqWZ8dCCQkAAAAAgAAAAAAAAAAL"
"""The head of the encrypted credential in systemd's own manual (systemd.io/CREDENTIALS): host and TPM2."""
HOST = b"Whxqht+dQJax1aZeCGLxmiAAAAABAAAADAAAABAAAAA="
"""Sealed with a key that lies on the same disk."""
NONE = b"BYRp2vb1QySABUnaD46i+yAAAAABAAAADAAAABAAAAA="
"""Sealed with no key at all, where there was no TPM."""


@pytest.fixture
def handed(tmp_path: Path) -> Path:
    """What systemd would hand to a process."""
    folder = tmp_path / "handed"
    folder.mkdir()
    return folder


@pytest.fixture
def store(tmp_path: Path, handed: Path) -> Keystore:
    return Keystore(tmp_path / "keys", handed, tmp_path / "sealed")


def seal(tmp_path: Path, blob: bytes, name: str = "pepper") -> None:
    (tmp_path / "sealed").mkdir(exist_ok=True)
    (tmp_path / "sealed" / f"postern.{name}").write_bytes(blob)


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path, store: Keystore) -> None:
    made = {name: store.load(name) for name in NAMES}
    assert {name: store.load(name) for name in NAMES} == made
    assert len({secret.reveal() for secret in made.values()}) == len(NAMES)
    for name in NAMES:
        assert (tmp_path / "keys" / name).stat().st_mode & 0o777 == 0o600
    assert store.levels() == dict.fromkeys(NAMES, "file")


def test_a_credential_is_taken_as_it_is_and_no_file_is_made(
    tmp_path: Path, store: Keystore, handed: Path
) -> None:
    (handed / "postern.pepper").write_bytes(KEY)
    assert store.load("pepper") == Secret(KEY)
    assert not (tmp_path / "keys" / "pepper").exists()
    assert store.levels() == {"pepper": Level.CREDENTIAL}


def test_a_key_is_kept_no_better_than_its_weakest_copy(tmp_path: Path, store: Keystore, handed: Path) -> None:
    key = store.load("pepper")
    (handed / "postern.pepper").write_bytes(key.reveal())
    seal(tmp_path, DOCUMENTED_TPM)
    assert store.level("pepper") is Level.FILE
    (tmp_path / "keys" / "pepper").unlink()
    assert store.level("pepper") is Level.TPM


def test_two_keys_of_one_name_are_not_chosen_between(store: Keystore, handed: Path) -> None:
    store.load("pepper")
    (handed / "postern.pepper").write_bytes(OTHER)
    with pytest.raises(BadKeyFile, match="expected the key that systemd handed over, got another"):
        store.load("pepper")


def test_a_key_of_another_size_is_refused_and_never_shown(store: Keystore, handed: Path) -> None:
    (handed / "postern.seal").write_bytes(KEY + b"\n")
    with pytest.raises(BadKeyFile, match="expected a key of 32 bytes, got 33") as refused:
        store.load("seal")
    assert "\\x01" not in str(refused.value)


def test_only_a_blob_that_names_the_tpm_needs_one(tmp_path: Path) -> None:
    for blob, needs in (
        (DOCUMENTED_TPM, True),
        (HOST, False),
        (NONE, False),
        (b"", False),
        (b"\xff\xfe not base64", False),
    ):
        (tmp_path / "blob").write_bytes(blob)
        assert needs_tpm(tmp_path / "blob") is needs
    assert not needs_tpm(tmp_path / "absent")


def test_a_tpm_is_claimed_of_nothing_that_systemd_did_not_hand_over(tmp_path: Path, store: Keystore) -> None:
    seal(tmp_path, DOCUMENTED_TPM)
    assert store.level("pepper") is None


def test_no_second_key_is_made_beside_one_that_is_sealed_and_was_not_handed_over(
    tmp_path: Path, store: Keystore, handed: Path
) -> None:
    seal(tmp_path, HOST)
    with pytest.raises(BadKeyFile, match="expected systemd to hand it over"):
        store.load("pepper")
    assert not (tmp_path / "keys").exists()
    (handed / "postern.pepper").write_bytes(KEY)
    assert store.load("pepper") == Secret(KEY)


def test_what_systemd_itself_seals_with_the_hosts_key_is_no_tpm(tmp_path: Path) -> None:
    """The header is read from a blob made by the machine's own tool."""
    tool = shutil.which("systemd-creds")
    if tool is None:
        pytest.skip("no systemd-creds on this machine to seal with")
    blob = tmp_path / "blob"
    sealed = subprocess.run(
        [tool, "encrypt", "--with-key=host", "--name=postern.pepper", "-", str(blob)],
        input=KEY,
        env={**os.environ, "SYSTEMD_CREDENTIAL_SECRET": str(tmp_path / "secret")},
        check=False,
        capture_output=True,
    )
    if sealed.returncode:
        pytest.skip(f"systemd-creds cannot seal here: {sealed.stderr.decode().strip()}")
    assert not needs_tpm(blob)
    assert blob.read_bytes().startswith(b"Whxqht+d")


def test_a_wipe_takes_what_opens_and_leaves_what_signs(tmp_path: Path, store: Keystore) -> None:
    before = {name: store.load(name) for name in NAMES}
    assert store.erase("operator") == ()
    assert store.wiped
    assert store.wiped_by() == "operator"
    assert store.load("device") == before["device"]
    assert store.levels() == {"device": "file"}
    for name in OPENING:
        assert store.find(name) is None
        with pytest.raises(BadKeyFile, match="wiped"):
            store.load(name)
        assert not (tmp_path / "keys" / name).exists()


def test_a_wipe_overwrites_before_it_unlinks(tmp_path: Path, store: Keystore) -> None:
    store.load("pepper")
    os.link(tmp_path / "keys" / "pepper", tmp_path / "still-open")
    store.erase("tamper")
    assert (tmp_path / "still-open").read_bytes() == bytes(32)


def test_a_credential_that_outlives_a_wipe_is_named_and_not_used(store: Keystore, handed: Path) -> None:
    (handed / "postern.pepper").write_bytes(KEY)
    assert store.erase("operator") == ("pepper",)
    assert store.find("pepper") is None
    with pytest.raises(BadKeyFile, match="pepper: expected none from before the wipe"):
        store.renew()


def test_keys_are_new_after_a_wipe(store: Keystore) -> None:
    before = {name: store.load(name) for name in NAMES}
    store.erase("operator")
    store.renew()
    assert not store.wiped
    assert {name for name in NAMES if store.load(name) == before[name]} == {"device"}


def test_a_wipe_that_was_cut_short_leaves_no_key_in_use(tmp_path: Path, store: Keystore) -> None:
    """The mark is on the disk before the first key goes."""
    store.load("pepper")
    (tmp_path / "keys" / "wiped").write_text("tamper")
    assert store.find("pepper") is None
    store.erase("tamper")
    assert not (tmp_path / "keys" / "pepper").exists()


# -- another seal key ---------------------------------------------------------------------------------


def test_a_next_seal_key_takes_the_place_of_the_one_before_which_is_gone(
    tmp_path: Path, store: Keystore
) -> None:
    old = store.load("seal").reveal()
    assert not store.change_seal()
    store.prepare_seal()
    before, following = store.seals()
    assert before.reveal() == old
    assert store.change_seal()
    assert [each.reveal() for each in store.seals()] == [following.reveal()]
    assert {path.name for path in (tmp_path / "keys").iterdir()} == {"seal"}


def test_what_was_left_of_an_old_seal_key_by_a_power_cut_goes_at_the_next_change(
    tmp_path: Path, store: Keystore
) -> None:
    store.load("seal")
    store.prepare_seal()
    (tmp_path / "keys" / "seal.gone").write_bytes(bytes(32))
    assert store.change_seal()
    assert {path.name for path in (tmp_path / "keys").iterdir()} == {"seal"}


def test_a_seal_key_that_systemd_hands_over_is_not_ours_to_replace(store: Keystore, handed: Path) -> None:
    (handed / "postern.seal").write_bytes(bytes(32))
    store.prepare_seal()
    assert not store.change_seal()
    assert len(store.seals()) == 2


def test_a_wipe_takes_the_next_seal_key_too(tmp_path: Path, store: Keystore) -> None:
    store.load("seal")
    store.prepare_seal()
    store.erase("operator")
    assert not (tmp_path / "keys" / "seal-next").exists()
    assert store.find("seal-next") is None
