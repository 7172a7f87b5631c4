"""Rows as people write them: what they mean, and what is said of each mistake."""

import base64
import json
from pathlib import Path

import pytest

from agent.fleet.row_files import read
from agent.fleet.sealing import RowOf
from agent.jws import encoded
from agent.mistakes import BadConfig

TOKEN = "8f14e45fceea167a5a36dedd4bea2543"
HEADER = "kind,subject,secret,finger,until,role,level,public_key\n"


def roster(folder: Path, *lines: str, header: str = HEADER) -> list[RowOf]:
    path = folder / "roster.csv"
    path.write_text(header + "".join(f"{line}\n" for line in lines))
    return read("roster", path)


def mistakes(folder: Path, *lines: str, header: str = HEADER) -> list[str]:
    with pytest.raises(BadConfig) as bad:
        roster(folder, *lines, header=header)
    return [str(mistake) for mistake in bad.value.mistakes]


def test_a_row_of_each_kind_is_read(tmp_path: Path) -> None:
    badge, static, pin, card = roster(
        tmp_path,
        "badge,drv-1,04a1b2c3d4,finger:7,2026-12-31,driver,,",
        f"static,drv-1,{TOKEN},,1800000000,,1,",
        "pin,drv-1,84612075,,2026-12-31T18:00:00+01:00,,,",
        f"fido2,drv-2,AAECAw,,,supervisor,,{'A' * 43}",
    )
    assert badge == RowOf(
        "badge",
        b"04a1b2c3d4",
        {"subject": "drv-1", "role": "driver", "finger": ["finger", 7], "until": 1_798_761_599},
    )
    assert (static.token, static.body["until"], static.body["level"]) == (TOKEN.encode(), 1_800_000_000, 1)
    assert (pin.token, pin.body["until"]) == (b"drv-1\x0084612075", 1_798_736_400)
    assert (card.token, card.body["public_key"], card.body["role"]) == (b"\0\1\2\3", "A" * 43, "supervisor")


def test_columns_may_be_left_out_and_stand_in_any_order(tmp_path: Path) -> None:
    (row,) = roster(tmp_path, "04a1,badge,drv-1", header="secret,kind,subject\n")
    assert row == RowOf("badge", b"04a1", {"subject": "drv-1"})


def test_rows_of_other_scopes_stay_at_home(tmp_path: Path) -> None:
    path = tmp_path / "roster.csv"
    rows = [
        "badge,drv-1,a,depot-7",
        "badge,drv-2,b,depot-7; depot-9",
        "badge,drv-3,c,depot-9",
        "badge,drv-4,d,",
    ]
    path.write_text("\n".join(["kind,subject,secret,scope", *rows]))

    def subjects(scope: str | None) -> list[str]:
        return [row.body["subject"] for row in read("roster", path, scope)]

    assert subjects("depot-7") == ["drv-1", "drv-2", "drv-4"]
    assert subjects("depot-9") == ["drv-2", "drv-3", "drv-4"]
    assert subjects(None) == ["drv-1", "drv-2", "drv-3", "drv-4"]
    assert not any("scope" in row.body for row in read("roster", path))
    with pytest.raises(BadConfig) as bad:
        subjects("all")
    assert [str(each) for each in bad.value.mistakes] == [
        "column scope: expected --scope, one of depot-7, depot-9, got 'all'"
    ]


def test_a_file_without_scopes_is_for_any(tmp_path: Path) -> None:
    path = tmp_path / "roster.csv"
    path.write_text("kind,subject,secret\nbadge,drv-1,a\n")
    assert len(read("roster", path, "depot-7")) == 1


def test_json_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "roster.json"
    path.write_text(json.dumps([{"kind": "badge", "subject": "drv-1", "secret": "04a1", "until": None}]))
    assert read("roster", path) == [RowOf("badge", b"04a1", {"subject": "drv-1"})]


def test_a_manifest_says_where_a_parcel_goes(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text(
        "label,driver,stop,flags\nsscc:106141412345678908,drv-1,s-4,fragile; id_check\ns10:X1,,,\n"
    )
    first, second = read("manifest", path)
    body = {"driver": "drv-1", "stop": "s-4", "flags": ["fragile", "id_check"]}
    assert first == RowOf("parcel", b"sscc:106141412345678908", body)
    assert second == RowOf("parcel", b"s10:X1", {})


def test_grants_are_opened_by_a_code_or_by_selector_and_pin(tmp_path: Path) -> None:
    path = tmp_path / "grants.csv"
    path.write_text(
        "kind,secret,selector,jti,locker,compartment,parcel,nbf,exp\n"
        "grant,AAAAAAAAAAAAAAAAAAAAAA,,g-1,locker-1,a17,sscc:1,1,2\n"
        "grant_pin,123456,47ab,g-2,locker-1,,sscc:2,,2\n"
    )
    code, pin = read("grants", path)
    assert (code.token, code.body["compartment"]) == (bytes(16), "a17")
    assert pin.token == b"47AB\x00123456", "in capitals, as a locker reads it"
    assert pin.body == {"jti": "g-2", "locker": "locker-1", "parcel": "sscc:2", "exp": 2}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "slot,drv-1,x,,,,,",
            "row 1, column kind: expected one of badge, static, pin, fido2, template, got 'slot'",
        ),
        ("badge,,x,,,,,", "row 1, column subject: expected something, got nothing"),
        ("badge,drv-1,,,,,,", "row 1, column secret: expected something, got nothing"),
        (
            "static,drv-1,short-token,,,,,",
            "row 1, column secret: expected a token of at least 128 bits, got at most 66",
        ),
        (
            "pin,drv-1,1234567,,,,,",
            "row 1, column secret: expected a PIN of at least 8 digits, got 7 characters",
        ),
        (
            "pin,drv-1,1234567x,,,,,",
            "row 1, column secret: expected a PIN of at least 8 digits, got 8 characters",
        ),
        ("badge,drv-1,x,seven,,,,", "row 1, column finger: expected UNIT:SLOT, got 'seven'"),
        (
            "badge,drv-1,x,,soon,,,",
            "row 1, column until: expected a date, an RFC 3339 time or seconds since 1970, got 'soon'",
        ),
        ("badge,drv-1,x,,,,9,", "row 1, column level: expected one of 0, 1, 2, 3, got '9'"),
        (
            "fido2,drv-1,#,,,,,",
            "row 1, column secret: expected the id of a credential in base64url, got another text",
        ),
    ],
)
def test_a_mistake_is_told_with_its_row_and_column(tmp_path: Path, line: str, said: str) -> None:
    assert mistakes(tmp_path, line) == [said]


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    told = mistakes(
        tmp_path, "badge,drv-1,a,,,,,", "slot,drv-1,b,,,,,", "badge,drv-1,c,,,,,", "pin,drv-1,1,,,,,"
    )
    assert [each.partition(":")[0] for each in told] == ["row 2, column kind", "row 4, column secret"]


def test_what_only_a_device_would_refuse_is_refused_here(tmp_path: Path) -> None:
    (told,) = mistakes(tmp_path, "badge,drv-1,a,,,owner,,")
    assert told.startswith("row 1: expected a row that a device takes")
    assert "role" in told


def test_the_same_secret_twice_is_told_with_both_rows(tmp_path: Path) -> None:
    told = mistakes(tmp_path, "badge,drv-1,a,,,,,", "badge,drv-2,a,,,,,")
    assert told == ["row 2, column secret: expected each once, got that of row 1"]


def test_an_unknown_column_is_named(tmp_path: Path) -> None:
    (told,) = mistakes(tmp_path, "badge,drv-1,a,Anna", header="kind,subject,secret,name\n")
    assert told.startswith("row 1, column name: expected one of kind, subject, secret")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("r.csv", b"\xff\xfe", "file: expected a readable file, got not UTF-8"),
        ("r.csv", b"kind,subject,secret\nbadge,drv-1\n", "row 1: expected 3 columns, got another number"),
        ("r.json", b"{}", "file: expected a list of objects, got something else"),
        ("r.json", b"[", "syntax: expected JSON"),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadConfig, match=said):
        read("roster", tmp_path / name)


def test_no_mistake_shows_a_secret(tmp_path: Path) -> None:
    told = mistakes(
        tmp_path, "static,drv-1,secret-static,,,,,", "pin,drv-1,4711secret,,,,,", "fido2,drv-1,secret!,,,,,"
    )
    assert len(told) == 3
    assert not [each for each in told if "secret-static" in each or "4711" in each or "secret!" in each]


# -- templates ------------------------------------------------------------------------------------

PROVISION = "kind,subject,secret,finger,until,template\n"
TEMPLATE = bytes(range(256)) * 2


def test_a_template_is_read_from_its_cell_or_from_the_file_beside_the_list(tmp_path: Path) -> None:
    (tmp_path / "anna.tpl").write_bytes(TEMPLATE)
    inline = base64.b64encode(TEMPLATE).decode()
    named, written = roster(
        tmp_path,
        "template,drv-1,,finger:7,2026-12-31,anna.tpl",
        f"template,drv-2,,finger:8,,{inline}",
        header=PROVISION,
    )
    assert named.token == b"drv-1\0finger\x007"
    assert named.body == {
        "subject": "drv-1",
        "unit": "finger",
        "slot": 7,
        "until": 1_798_761_599,
        "template": encoded(TEMPLATE),
    }
    assert (written.kind, written.body["template"]) == ("template", encoded(TEMPLATE))
    assert encoded(TEMPLATE)[:20] not in repr(named)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("template,drv-1,,,,a.tpl", "row 1, column finger: expected something, got nothing"),
        ("template,,,finger:7,,a.tpl", "row 1, column subject: expected something, got nothing"),
        ("template,drv-1,,finger:7,,", "row 1, column template: expected something, got nothing"),
        ("template,drv-1,,finger,,a.tpl", "row 1, column finger: expected UNIT:SLOT, got 'finger'"),
        ("template,drv-1,,finger:7777777,,a.tpl", "row 1, column finger: expected UNIT:SLOT"),
        (
            "template,drv-1,,finger:70000,,a.tpl",
            "row 1: expected a row that a device takes, got rows.0.template.body.slot",
        ),
        (
            "template,drv-1,,Finger:7,,a.tpl",
            "row 1: expected a row that a device takes, got rows.0.template.body.unit",
        ),
        (
            "template,drv-1,x,finger:7,,a.tpl",
            "row 1, column secret: expected nothing in rows of kind template",
        ),
        (
            "badge,drv-1,x,finger:7,,a.tpl",
            "row 1, column template: expected nothing but in rows of kind template",
        ),
        (
            "template,drv-1,,finger:7,,b.tpl",
            "row 1, column template: expected base64, or a readable file, got No",
        ),
        (
            "template,drv-1,,finger:7,,.",
            "row 1, column template: expected base64, or a readable file, got Is a",
        ),
        (
            "template,drv-1,,finger:7,,small.tpl",
            "row 1, column template: expected 256 to 2048 bytes, got 255",
        ),
        (
            "template,drv-1,,finger:7,,large.tpl",
            "row 1, column template: expected 256 to 2048 bytes, got more",
        ),
        (f"template,drv-1,,finger:7,,{'A' * 300}!", "row 1, column template: expected base64, or the path"),
        (
            f"template,drv-1,,finger:7,,{'A' * 4000}",
            "row 1, column template: expected 256 to 2048 bytes, got more",
        ),
        ("template,drv-1,,finger:7,soon,a.tpl", "row 1, column until: expected a date"),
    ],
)
def test_a_mistake_with_a_template_is_told_with_its_place(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "a.tpl").write_bytes(TEMPLATE)
    (tmp_path / "small.tpl").write_bytes(bytes(255))
    (tmp_path / "large.tpl").write_bytes(bytes(2049))
    (told,) = mistakes(tmp_path, line, header=PROVISION)
    assert told.startswith(said)
    assert "AAAA" not in told


def test_a_slot_has_one_template(tmp_path: Path) -> None:
    (tmp_path / "a.tpl").write_bytes(TEMPLATE)
    told = mistakes(
        tmp_path,
        "template,drv-1,,finger:7,,a.tpl",
        "template,drv-2,,finger:07,,a.tpl",
        header=PROVISION,
    )
    assert told == ["row 2, column finger: expected each once, got that of row 1"]
