"""Signed notes against the published examples, then everything that must not pass for one."""

import base64
import contextlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from agent.ledger import EMPTY_ROOT, Frontier, consistency_proof, leaf_hash
from agent.note import (
    CAP,
    LARGEST,
    SIGNATURES,
    BadNote,
    Checkpoint,
    Note,
    SignerKey,
    TwoHistories,
    VerifierKey,
    check_continues,
    cosign,
    open_checkpoint,
    open_note,
    promise,
    sign,
)
from tests.test_jws import wycheproof

# The example of the Go package golang.org/x/mod/sumdb/note, with a second signer from its tests.
PETER_SECRET = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
ENOCH = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_LINE = (
    "— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ENOCH_LINE = (
    "— EnochRoot "
    "rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
)

# The examples of the C2SP documents signed-note and tlog-cosignature.
POEM = (
    "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n"
    "— quasimodo.example/salvatore "
    "NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
)
SOFA_TEXT = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
SOFA = (
    f"{SOFA_TEXT}\n"
    "— example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "— witness.example.com/w1 "
    "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)

ORIGIN = "acme/locker-17/5f1e0c9a77b2"
LEAVES = [leaf_hash(f"entry {number}".encode()) for number in range(200)]


def key(name: str, seed: int = 1) -> SignerKey:
    return SignerKey(name, Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


DEVICE = key(ORIGIN, 1)
FLEET = key("acme/fleet", 2)


def peter() -> SignerKey:
    seed = base64.b64decode(PETER_SECRET)[1:]
    return SignerKey("PeterNeumann", Ed25519PrivateKey.from_private_bytes(seed))


def checkpoint(size: int, origin: str = ORIGIN) -> Checkpoint:
    return Checkpoint(origin, size, Frontier().append(*LEAVES[:size]).root())


def proof(old: int, new: int) -> list[bytes]:
    return consistency_proof(old, new, lambda start, end: LEAVES[start:end])


# -- published examples ---------------------------------------------------------------------------


def test_the_published_keys_are_read_and_written_the_same() -> None:
    for text in (PETER, ENOCH):
        assert VerifierKey.parse(text).text == text
    assert peter().verifier.text == PETER


def test_the_published_note_is_signed_byte_for_byte() -> None:
    assert sign(TEXT, peter()) == f"{TEXT}\n{PETER_LINE}".encode()


def test_the_published_note_opens_with_the_published_key() -> None:
    opened = open_note(f"{TEXT}\n{PETER_LINE}".encode(), [VerifierKey.parse(PETER)])
    assert opened.text == TEXT
    assert opened.signers == (VerifierKey.parse(PETER),)


def test_both_published_signatures_verify_on_one_note() -> None:
    keys = [VerifierKey.parse(ENOCH), VerifierKey.parse(PETER)]
    opened = open_note(f"{TEXT}\n{PETER_LINE}{ENOCH_LINE}".encode(), keys)
    assert [signer.name for signer in opened.signers] == ["PeterNeumann", "EnochRoot"]


def test_an_empty_line_within_the_text_stays_in_the_text() -> None:
    note = Note.parse(POEM.encode())
    assert note.text.endswith("\n\ned è subito sera.\n")
    assert [signature.name for signature in note.signatures] == ["quasimodo.example/salvatore"]
    assert note.raw == POEM.encode()


def test_the_published_cosigned_checkpoint_is_read() -> None:
    note = Note.parse(SOFA.encode())
    read = Checkpoint.parse(note.text)
    assert (read.origin, read.size) == ("example.com/behind-the-sofa", 20852163)
    assert read.text == SOFA_TEXT
    assert [len(signature.value) for signature in note.signatures] == [64, 72]
    assert note.raw == SOFA.encode()


# -- who signed -----------------------------------------------------------------------------------


def test_signatures_of_unknown_keys_are_ignored() -> None:
    opened = open_note(f"{TEXT}\n{ENOCH_LINE}{PETER_LINE}".encode(), [VerifierKey.parse(PETER)])
    assert [signer.name for signer in opened.signers] == ["PeterNeumann"]


@pytest.mark.parametrize("keys", [[], [VerifierKey.parse(ENOCH)]], ids=["no keys", "another key"])
def test_a_note_that_no_known_key_signed_is_refused(keys: list[VerifierKey]) -> None:
    with pytest.raises(BadNote, match="expected a signature of a known key, got none"):
        open_note(f"{TEXT}\n{PETER_LINE}".encode(), keys)


def test_a_key_of_the_same_name_is_another_key() -> None:
    raw = sign(TEXT, key("acme/fleet", 3))
    with pytest.raises(BadNote, match="known key"):
        open_note(raw, [FLEET.verifier])


def test_one_bad_signature_of_a_known_key_spoils_the_note() -> None:
    raw = sign(TEXT, FLEET, DEVICE)
    other = Note.parse(sign("Another text.\n", DEVICE)).signatures[0]
    spoiled = f"{TEXT}\n{Note.parse(raw).signatures[0].line}{other.line}".encode()
    with pytest.raises(BadNote, match=f"bad signature of {ORIGIN}"):
        open_note(spoiled, [FLEET.verifier, DEVICE.verifier])


def test_a_good_signature_does_not_hide_a_bad_one_of_the_same_key() -> None:
    good = Note.parse(sign(TEXT, FLEET)).signatures[0]
    bad = Note.parse(sign("Another text.\n", FLEET)).signatures[0]
    with pytest.raises(BadNote, match="bad signature"):
        open_note(f"{TEXT}\n{good.line}{bad.line}".encode(), [FLEET.verifier])


def test_a_key_that_signed_twice_counts_once() -> None:
    line = Note.parse(sign(TEXT, FLEET)).signatures[0].line
    assert open_note(f"{TEXT}\n{line}{line}".encode(), [FLEET.verifier]).signers == (FLEET.verifier,)


def test_a_signature_of_the_wrong_length_is_bad_not_a_crash() -> None:
    short = Note.parse(sign(TEXT, FLEET)).signatures[0]
    line = f"— {short.name} {base64.b64encode(short.key_id + short.value[:-1]).decode()}\n"
    with pytest.raises(BadNote, match="bad signature"):
        open_note(f"{TEXT}\n{line}".encode(), [FLEET.verifier])


def test_every_wycheproof_vector_whose_message_is_text_is_judged_as_it_should_be() -> None:
    judged, expected = {}, {}
    for number, result, *values, _ in wycheproof():
        public, message, signature = (bytes.fromhex(each.replace("-", "")) for each in values)
        with contextlib.suppress(UnicodeDecodeError):
            judged[number] = VerifierKey("acme", public).verifies(message.decode(), signature)
            expected[number] = result == "valid"
    assert judged == expected
    assert len(judged) == 84


def test_two_known_keys_that_cannot_be_told_apart_are_a_mistake_of_the_caller() -> None:
    # Found by counting: these two numbers, as public keys under one name, share the key id 6170f12a.
    one, other = (VerifierKey("x", number.to_bytes(32, "big")) for number in (17346, 75898))
    assert one.id == other.id
    with pytest.raises(ValueError, match="two keys share the name and id"):
        open_note(sign(TEXT, FLEET), [one, other])


@given(st.integers(0, 8 * len(f"{TEXT}\n{PETER_LINE}".encode()) - 1))
def test_no_flipped_bit_of_a_note_goes_unnoticed(bit: int) -> None:
    raw = bytearray(f"{TEXT}\n{PETER_LINE}".encode())
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadNote):
        open_note(bytes(raw), [VerifierKey.parse(PETER)])


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_noise_is_a_bad_note_and_nothing_else(raw: bytes) -> None:
    with pytest.raises(BadNote):
        open_note(raw, [FLEET.verifier])


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.just("\n")))
def test_what_was_signed_is_what_is_opened(text: str) -> None:
    assert open_note(sign(f"{text}\n", FLEET), [FLEET.verifier]).text == f"{text}\n"


# -- the form of a note ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "an empty line"),
        (TEXT.encode(), "an empty line"),
        (f"{TEXT}\n".encode(), "up to the last newline"),
        (f"{TEXT}\n{PETER_LINE}".encode()[:-1], "up to the last newline"),
        (f"{TEXT}{PETER_LINE}".encode(), "an empty line"),
        (f"{TEXT}\n{PETER_LINE}\n".encode(), "up to the last newline"),
        (f"\x01{TEXT}\n{PETER_LINE}".encode(), "no control characters"),
        (f"{TEXT}\n{PETER_LINE}".replace("\n", "\r\n").encode(), "no control characters"),
        (f"{TEXT}\tx\n\n{PETER_LINE}".encode(), "no control characters"),
        (b"\xff" + f"{TEXT}\n{PETER_LINE}".encode(), "UTF-8"),
        (f"{TEXT}\n{PETER_LINE}More text.\n".encode(), "a signature line"),
        (f"{TEXT}\n- PeterNeumann x08go/ZJkuA=\n".encode(), "a signature line"),
        (f"{TEXT}\n— Peter Neumann x08go/ZJkuA=\n".encode(), "base64"),
        (f"{TEXT}\n— Peter\u00a0Neumann x08go/ZJkuA=\n".encode(), "a name without spaces"),
        (f"{TEXT}\n— Peter+Neumann x08go/ZJkuA=\n".encode(), "a name without spaces"),
        (f"{TEXT}\n—  x08go/ZJkuA=\n".encode(), "a name without spaces"),
        (f"{TEXT}\n— PeterNeumann\n".encode(), "a signature after the key id"),
        (f"{TEXT}\n— PeterNeumann x08gow==\n".encode(), "a signature after the key id"),
        (f"{TEXT}\n— PeterNeumann x08go/ZJku\n".encode(), "base64"),
        (f"{TEXT}\n— PeterNeumann x08go/ZJkuB=\n".encode(), "canonical base64"),
        (f"{TEXT}\n— PeterNeumann x08go_ZJkuA=\n".encode(), "base64"),
        (f"{TEXT}\n— PeterNeumann x08göZJkuA=\n".encode(), "base64"),
        (f"{TEXT}\n".encode() + PETER_LINE.encode() * (SIGNATURES + 1), "at most 16 signatures, got 17"),
        (f"{TEXT}\n{PETER_LINE[:-1]}\u2028{PETER_LINE}".encode(), "base64"),
        (b"x" * (CAP + 1), "at most 131072 bytes, got 131073"),
    ],
)
def test_what_is_not_a_note_is_refused_with_the_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(BadNote, match=reason):
        Note.parse(raw)


def test_a_note_may_carry_as_many_signatures_as_the_standard_asks_for() -> None:
    signers = [key(f"signer-{number}", number + 1) for number in range(SIGNATURES)]
    opened = open_note(sign(TEXT, *signers), [signer.verifier for signer in signers])
    assert len(opened.signers) == SIGNATURES


def test_a_line_separator_of_unicode_does_not_end_a_line() -> None:
    text = "one\u2028two\x85three\n"
    assert open_note(sign(text, FLEET), [FLEET.verifier]).text == text


@pytest.mark.parametrize("text", ["", "no newline", "a\x00b\n", "a\r\n", "first\n\n— x AAAAAAAA"])
def test_a_text_that_no_note_can_carry_is_not_signed(text: str) -> None:
    with pytest.raises(BadNote):
        sign(text, FLEET)


def test_a_note_without_signers_is_not_made() -> None:
    with pytest.raises(BadNote):
        sign(TEXT)


@pytest.mark.parametrize("name", ["", "two words", "a+b", "a\nb", "a\u2003b", "a\x1fb"])
def test_a_name_that_could_break_a_line_is_no_name(name: str) -> None:
    with pytest.raises(BadNote, match="a name without spaces"):
        sign(TEXT, key(name))


# -- keys as text ---------------------------------------------------------------------------------


@given(st.integers(0, 8 * len(PETER) - 1))
def test_no_flipped_bit_of_a_key_goes_unnoticed(bit: int) -> None:
    raw = bytearray(PETER.encode())
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadNote):
        VerifierKey.parse(raw.decode("latin-1"))


@given(st.binary(min_size=32, max_size=32))
def test_every_key_is_read_as_it_was_written(public: bytes) -> None:
    written = VerifierKey(ORIGIN, public)
    assert VerifierKey.parse(written.text) == written


@given(st.integers(0, len(PETER)), st.integers(0, len(PETER)))
def test_no_part_of_a_key_is_a_key(start: int, end: int) -> None:
    part = PETER[start:end]
    if part != PETER:
        with pytest.raises(BadNote):
            VerifierKey.parse(part)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==", "base64"),
        ("PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADK", "32 bytes, got 35"),
        ("PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "an Ed25519 key"),
        (PETER.replace("c74f20a3", "C74F20A3"), "expected key id c74f20a3, got 'C74F20A3'"),
        ("PeterNeumann", "name.id.key"),
    ],
)
def test_a_key_of_another_kind_or_length_is_refused(text: str, reason: str) -> None:
    with pytest.raises(BadNote, match=reason):
        VerifierKey.parse(text)


# -- cosigning ------------------------------------------------------------------------------------


def test_the_fleet_adds_its_line_after_the_device() -> None:
    raw = cosign(sign(TEXT, DEVICE), FLEET)
    assert raw == sign(TEXT, DEVICE, FLEET)
    assert open_note(raw, [FLEET.verifier, DEVICE.verifier]).signers == (DEVICE.verifier, FLEET.verifier)


def test_cosigning_again_changes_nothing() -> None:
    raw = sign(TEXT, DEVICE, FLEET)
    assert cosign(raw, FLEET) == raw


def test_cosigning_keeps_the_lines_of_others_as_they_were() -> None:
    raw = cosign(SOFA.encode(), FLEET)
    assert raw.startswith(SOFA.encode())
    assert open_note(raw, [FLEET.verifier]).text == SOFA_TEXT


def test_a_full_note_takes_no_further_signature() -> None:
    full = sign(TEXT, *(key(f"signer-{number}") for number in range(SIGNATURES)))
    with pytest.raises(BadNote, match="at most 16 signatures, got 17"):
        cosign(full, FLEET)


# -- checkpoints ----------------------------------------------------------------------------------


@given(st.integers(1, LARGEST), st.binary(min_size=32, max_size=32))
def test_a_checkpoint_is_read_as_it_was_written(size: int, root: bytes) -> None:
    written = Checkpoint(ORIGIN, size, root)
    assert Checkpoint.parse(written.text) == written


def test_an_empty_ledger_has_a_checkpoint() -> None:
    text = f"{ORIGIN}\n0\n{base64.b64encode(EMPTY_ROOT).decode()}\n"
    assert Checkpoint.parse(text) == checkpoint(0)


def test_extension_lines_are_passed_over() -> None:
    assert Checkpoint.parse(f"{checkpoint(5).text}an extension\nanother\n") == checkpoint(5)


ROOT_TEXT = base64.b64encode(LEAVES[0]).decode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "each on a line"),
        (f"{ORIGIN}\n5\n", "each on a line"),
        (f"{ORIGIN}\n5\n{ROOT_TEXT}", "each on a line"),
        (f"{ORIGIN}\n5\n{ROOT_TEXT}\nextension", "each on a line"),
        (f"\n5\n{ROOT_TEXT}\n", "no empty line"),
        (f"{ORIGIN}\n5\n{ROOT_TEXT}\n\n", "no empty line"),
        (f"{ORIGIN}\n5\n{ROOT_TEXT}\n\nextension\n", "no empty line"),
        (f"two words\n5\n{ROOT_TEXT}\n", "a name without spaces"),
        (f"{ORIGIN}\n05\n{ROOT_TEXT}\n", "a decimal size, got '05'"),
        (f"{ORIGIN}\n+5\n{ROOT_TEXT}\n", "a decimal size"),
        (f"{ORIGIN}\n-5\n{ROOT_TEXT}\n", "a decimal size"),
        (f"{ORIGIN}\n5 \n{ROOT_TEXT}\n", "a decimal size"),
        (f"{ORIGIN}\n1_000\n{ROOT_TEXT}\n", "a decimal size"),
        (f"{ORIGIN}\n٥\n{ROOT_TEXT}\n", "a decimal size"),
        (f"{ORIGIN}\n{'9' * 5000}\n{ROOT_TEXT}\n", "a decimal size"),
        (f"{ORIGIN}\n{LARGEST + 1}\n{ROOT_TEXT}\n", "a size from 0 to"),
        (f"{ORIGIN}\n0\n{ROOT_TEXT}\n", "the root of the empty tree"),
        (f"{ORIGIN}\n5\n{ROOT_TEXT[:-4]}\n", "a root of 32 bytes, got 30"),
        (f"{ORIGIN}\n5\n{ROOT_TEXT[:-1]}\n", "base64"),
        (f"{ORIGIN}\n5\n{LEAVES[0].hex()}\n", "a root of 32 bytes, got 48"),
    ],
)
def test_what_is_not_a_checkpoint_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(BadNote, match=reason):
        Checkpoint.parse(text)


def test_a_checkpoint_opens_with_the_key_of_its_ledger_and_tells_who_cosigned() -> None:
    raw = cosign(sign(checkpoint(64).text, DEVICE), FLEET)
    assert open_checkpoint(raw, DEVICE.verifier) == (checkpoint(64), (DEVICE.verifier,))
    found, signers = open_checkpoint(raw, DEVICE.verifier, [FLEET.verifier])
    assert found == checkpoint(64)
    assert signers == (DEVICE.verifier, FLEET.verifier)


def test_the_fleet_alone_does_not_make_a_checkpoint() -> None:
    raw = sign(checkpoint(64).text, FLEET)
    with pytest.raises(BadNote, match=f"expected a signature of {ORIGIN}, got none"):
        open_checkpoint(raw, DEVICE.verifier, [FLEET.verifier])


def test_one_device_does_not_speak_for_the_ledger_of_another() -> None:
    raw = sign(checkpoint(64, "acme/locker-18/5f1e0c9a77b2").text, DEVICE)
    with pytest.raises(BadNote, match="got one of acme/locker-18/5f1e0c9a77b2"):
        open_checkpoint(raw, DEVICE.verifier)


# -- never two histories --------------------------------------------------------------------------


def test_a_checkpoint_that_continues_the_last_one_is_signed() -> None:
    raw = promise(checkpoint(128), DEVICE, last=checkpoint(64), proof=proof(64, 128))
    assert Checkpoint.parse(open_note(raw, [DEVICE.verifier]).text) == checkpoint(128)


@pytest.mark.parametrize("size", [0, 1, 64])
def test_the_first_checkpoint_of_a_ledger_has_nothing_to_continue(size: int) -> None:
    raw = promise(checkpoint(size), DEVICE, last=None, proof=[])
    assert Checkpoint.parse(Note.parse(raw).text) == checkpoint(size)


def test_the_same_checkpoint_may_be_signed_again_and_gives_the_same_bytes() -> None:
    once = promise(checkpoint(64), DEVICE, last=None, proof=[])
    assert promise(checkpoint(64), DEVICE, last=checkpoint(64), proof=[]) == once


@pytest.mark.parametrize(
    ("last", "new", "given_proof", "reason"),
    [
        (checkpoint(65), checkpoint(64), [], "at least the 65 leaves already signed, got 64"),
        (checkpoint(64), checkpoint(0), [], "at least the 64 leaves already signed, got 0"),
        (Checkpoint(ORIGIN, 64, LEAVES[0]), checkpoint(64), [], "does not"),
        (Checkpoint(ORIGIN, 64, LEAVES[0]), checkpoint(128), proof(64, 128), "does not"),
        (checkpoint(64), Checkpoint(ORIGIN, 128, LEAVES[0]), proof(64, 128), "does not"),
        (checkpoint(64), checkpoint(128), [], "does not"),
        (checkpoint(64), checkpoint(128), proof(64, 127), "does not"),
        (checkpoint(64), checkpoint(64), proof(32, 64), "does not"),
        (checkpoint(64, "acme/locker-17/000000000000"), checkpoint(128), proof(64, 128), "a checkpoint of"),
    ],
)
def test_a_second_history_is_never_signed(
    last: Checkpoint, new: Checkpoint, given_proof: list[bytes], reason: str
) -> None:
    with pytest.raises(TwoHistories, match=reason):
        promise(new, DEVICE, last=last, proof=given_proof)


@given(st.integers(0, 200), st.integers(0, 200))
def test_every_two_states_of_one_ledger_are_one_history(one: int, other: int) -> None:
    old, new = sorted((one, other))
    check_continues(checkpoint(old), checkpoint(new), proof(old, new))
