"""Tars with crafted and damaged headers: every byte is accounted for, in time and memory bounded by the tar's size."""

import io
import json
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.foreign_tars import assert_rows_point_into_tars, index, sample, tar
from helpers.support import jpeg

from rhostream.errors import RhostreamError
from rhostream.pipeline.corpora import Damage, DamagedTarError, Member, tar_members

BLOCK = tarfile.BLOCKSIZE
MUTATIONS = int(os.environ.get("RHO_TEST_MUTATIONS", "500"))


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header with a valid check sum, whatever it claims."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    field = size.to_bytes(12, signed=True) if size < 0 or size >= 8**11 else b"%011o\0" % size
    block[124:136] = (b"\x80" + field[1:]) if size >= 8**11 else field
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def record(key: str, value: str) -> bytes:
    length = len(f" {key}={value}\n") + 1
    while len(f"{length} {key}={value}\n") != length:
        length += 1
    return f"{length} {key}={value}\n".encode()


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def pax(content: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return header("pax", len(content), kind) + padded(content)


#: What stands before the second of two samples, and is no member.
CRAFTED: dict[str, bytes] = {
    "a negative size": header("x.jpg", -512),
    "a size of 2^40": header("x.jpg", 2**40),
    "a size of 2^63": header("x.jpg", 2**63),
    "a long name of 2^40 bytes": header("././@LongLink", 2**40, tarfile.GNUTYPE_LONGNAME),
    "pax records of 2^40 bytes": header("pax", 2**40, tarfile.XHDTYPE),
    "pax records of no form": pax(b"not a record at all"),
    "a pax size of no number": pax(record("size", "many")) + header("x.jpg", 0),
    "a pax size below 0": pax(record("size", "-512")) + header("x.jpg", 0),
    "5,000 chained pax headers": pax(record("comment", "x")) * 5000,
    "a sparse member": header("x.jpg", 512, tarfile.GNUTYPE_SPARSE) + bytes(512),
    "a pax sparse map of no numbers": pax(record("GNU.sparse.map", "a,b") + record("GNU.sparse.size", "9"))
    + header("x", 9)
    + bytes(BLOCK),
    "random bytes": random.Random(0).randbytes(3 * BLOCK),
    "a byte too many": b"x",
    "half a header": header("x.jpg", 0)[:200],
}


def two_samples(path: Path, between: bytes) -> bytes:
    whole = tar(path, *sample("first", "0", 1), *sample("second", "1", 2)).read_bytes()
    with tarfile.open(path) as archive:
        at = archive.getmember("second.jpg").offset
    return whole[:at] + between + whole[at:]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("how", CRAFTED)
def test_crafted_headers_stop_the_reader_or_are_skipped(tmp_path: Path, how: str) -> None:
    content = two_samples(tmp_path / "a.tar", CRAFTED[how])
    names = []
    with pytest.raises(DamagedTarError):
        names += [member.name for member in tar_members(io.BytesIO(content)) if isinstance(member, Member)]
    found = list(tar_members(io.BytesIO(content), skip_damage=True))
    members = [member.name for member in found if isinstance(member, Member)]
    assert [name for name in members if name[0] in "fs"] == ["first.jpg", "first.cls", "second.jpg", "second.cls"]
    assert sum(found.size for found in found if isinstance(found, Damage)) > 0


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "[" * 100_000, "label_missing"),
        (lambda text: json.dumps({"label": "\ud800"}), "label_unknown"),
        (lambda text: json.dumps({"label": "\x1b[31m" + "x" * 9000}), "label_unknown"),
        (lambda text: " " * (5 << 20), "label_unknown"),
    ],
    ids=["deep JSON", "a lone surrogate", "a long label", "a large JSON"],
)
def test_odd_texts_become_rejects_with_short_details(
    tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    good = [m for n in range(20) for m in ((f"{n}.jpg", jpeg(n)), (f"{n}.json", json.dumps({"label": n % 2}).encode()))]
    odd = [("odd.jpg", jpeg(30)), ("odd.json", change("").encode("utf-8", "surrogatepass"))]
    tar(tmp_path / "a.tar", *good, *odd)
    summary = index(tmp_path / "w", tmp_path, classes=("0", "1"), options={"label": "json.label"})
    assert (sum(summary.samples.values()), summary.rejects) == (20, {message: 1})


def mutated(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    how = chance.randrange(5)
    if how == 0:
        for _ in range(chance.randint(1, 8)):
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    elif how == 1:
        at = chance.randrange(len(changed))
        del changed[at : at + chance.choice((1, 7, BLOCK, 1000))]
    elif how == 2:
        at = chance.randrange(len(changed))
        changed[at:at] = chance.choice((b"x", bytes(BLOCK), chance.randbytes(700), chance.choice([*CRAFTED.values()])))
    elif how == 3:
        del changed[chance.randrange(len(changed)) :]
    else:  # a header's numbers
        at = chance.randrange(len(changed) // BLOCK) * BLOCK
        changed[at + 100 : at + 160] = chance.randbytes(60)
    return bytes(changed)


@pytest.mark.timeout(120)
def test_mutated_tars_lose_no_byte_that_is_not_counted() -> None:
    chance = random.Random(1)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in (member for n in range(6) for member in sample(f"é{n}" * (1 + 40 * (n == 3)), "0", n)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    whole = buffer.getvalue()
    for number in range(MUTATIONS):
        content = mutated(whole, chance)
        covered, at = 0, 0
        for found in tar_members(io.BytesIO(content), lambda name: 64, skip_damage=True):
            assert found.offset >= at, f"mutation {number} gives bytes twice"
            at = found.offset + found.size
            covered += found.size
            assert at <= len(content)
        plain: list[Member | Damage] = []
        try:
            plain.extend(tar_members(io.BytesIO(content)))
        except DamagedTarError:
            continue
        assert len(plain) >= 1, f"mutation {number}"


def test_a_damaged_tar_of_many_samples_keeps_all_whole_ones(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", *(member for n in range(40) for member in sample(f"s{n:03d}", str(n % 2), n)))
    content = path.read_bytes()
    at = content.index(b"s020.cls") - 700  # inside the image of sample 20
    path.write_bytes(content[:at] + content[at + 1 :])
    with pytest.raises(RhostreamError, match=r"no valid header at byte \d+"):
        index(tmp_path / "stopped", tmp_path)
    summary = index(tmp_path / "w", tmp_path, options={"on_bad_tar": "skip"})
    assert summary.entries == sum(summary.samples.values()) + sum(summary.rejects.values())
    assert sum(summary.samples.values()) >= 39
    assert_rows_point_into_tars(tmp_path / "w")
