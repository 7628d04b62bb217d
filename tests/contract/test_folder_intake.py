"""What a folder alone can do to intake: files that change or come again under their name while they are in hand, names of any kind, huge files."""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from adapters.folder import FolderAdapter
from events.errors import Unavailable
from hub.intake.delivery import Delivery, Outcome

DONE = Outcome("d" * 64, [])
OLD_S = 100.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "watched"


@pytest.fixture
def adapter(path: Path) -> Iterator[FolderAdapter]:
    adapter = FolderAdapter(path)
    adapter.open()
    yield adapter
    adapter.close()


def drop(folder: Path, name: str, body: bytes, age_s: float = OLD_S) -> Path:
    """A whole file, renamed in."""
    draft = folder / ".draft"
    draft.write_bytes(body)
    os.utime(draft, (time.time() - age_s, time.time() - age_s))
    draft.rename(folder / name)
    return folder / name


def bodies(deliveries: Sequence[Delivery]) -> list[bytes]:
    return [d.body for d in deliveries]


def kept(path: Path) -> list[bytes]:
    """Contents of all files anywhere in the folder."""
    return sorted(file.read_bytes() for file in path.rglob("*") if file.is_file())


def test_a_file_that_came_under_the_same_name_meanwhile_is_taken_too(path: Path, adapter: FolderAdapter) -> None:
    drop(path, "export.json", b"first!")
    (first,) = adapter.receive(10, 0)
    drop(path, "export.json", b"second")  # the source writes the same name again before the first is durable
    first.done(DONE)
    (second,) = adapter.receive(10, 0)
    assert second.body == b"second"
    second.done(DONE)
    assert (path / "done" / "export.json").read_bytes() == b"second"
    assert not (path / "export.json").exists()


def test_a_file_that_was_written_to_meanwhile_is_taken_again(path: Path, adapter: FolderAdapter) -> None:
    file = drop(path, "log.ndjson", b"one\n")
    (first,) = adapter.receive(10, 0)
    with file.open("ab") as more:
        more.write(b"two\n")
    os.utime(file, (time.time() - OLD_S / 2, time.time() - OLD_S / 2))
    first.done(DONE)
    assert bodies(adapter.receive(10, 0)) == [b"one\ntwo\n"]


@pytest.mark.parametrize("off_s", [-86400.0, 86400.0, 0.0])
def test_a_file_is_whole_whatever_the_time_of_day(
    off_s: float, path: Path, adapter: FolderAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's clock is a day behind that of the files, or a day ahead."""
    true = time.time
    monkeypatch.setattr("time.time", lambda: true() + off_s)
    monkeypatch.setattr("hub.limits.FOLDER_SETTLED_S", 0.2)
    file = path / "export.json"
    file.write_bytes(b"hal")
    assert adapter.receive(10, 0) == []
    with file.open("ab") as more:
        more.write(b"f and")
    assert adapter.receive(10, 0) == []
    with file.open("ab") as more:
        more.write(b" half")
    assert bodies(adapter.receive(10, 30)) == [b"half and half"]


def test_no_file_overwrites_another_where_they_are_put(path: Path, adapter: FolderAdapter) -> None:
    contents = [b"a", b"b", b"b", b"c"]
    for content in contents:
        drop(path, "order.json", content)
        (one,) = adapter.receive(10, 0)
        one.done(DONE)
    assert kept(path) == sorted(contents)
    assert len(list((path / "done").iterdir())) == 4


def test_no_file_is_lost_when_a_thousand_have_its_name(path: Path, adapter: FolderAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.limits.DELIVERY_BYTES_MAX", 10)
    for name in ("big", *(f"too-large-{n}-big" for n in range(1001))):
        (path / "held" / name).touch()
    drop(path, "big", b"larger than ten bytes")
    drop(path, "small", b"small", OLD_S / 2)
    assert bodies(adapter.receive(10, 0)) == [b"small"]
    assert b"larger than ten bytes" in kept(path / "held")


def test_a_name_as_long_as_a_name_can_be_is_put_away(path: Path, adapter: FolderAdapter) -> None:
    name = "ü" * 125 + ".json"  # 255 bytes
    for content in (b"a", b"b"):
        drop(path, name, content)
        (one,) = adapter.receive(10, 0)
        one.done(DONE)
    assert not (path / name).exists()
    assert kept(path / "done") == [b"a", b"b"]


def test_a_name_that_is_no_text_is_put_away(path: Path, adapter: FolderAdapter) -> None:
    name = os.fsdecode(b"\xff\xfe\n.json")
    drop(path, name, b"a")
    (one,) = adapter.receive(10, 0)
    assert one.headers["file_name"] == "\\xff\\xfe\n.json"
    one.done(DONE)
    assert [entry.name for entry in (path / "done").iterdir()] == [name]


def test_what_cannot_be_put_away_holds_up_nothing(path: Path, adapter: FolderAdapter, caplog: pytest.LogCaptureFixture) -> None:
    for n in range(3):
        drop(path, f"{n}.json", b"%d" % n, OLD_S - n)
    received = adapter.receive(10, 0)
    (path / "done").rmdir()
    (path / "done").touch()
    received[0].done(DONE)
    assert "0.json is in the log but cannot be moved to done/" in caplog.text
    (path / "done").unlink()  # a person mends it; the folder itself is made anew
    received[1].done(DONE)
    received[2].done(DONE)
    assert sorted(entry.name for entry in (path / "done").iterdir()) == ["1.json", "2.json"]
    assert adapter.receive(10, 0) == []
    adapter.open()
    assert bodies(adapter.receive(10, 0)) == [b"0"]


def test_only_whole_files_are_taken(path: Path, adapter: FolderAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.limits.FOLDER_SETTLED_S", 0.4)
    for name in (".hidden", "x.tmp", "x.PART", "x.filepart"):
        drop(path, name, b"not whole")
    (path / "sub").mkdir()
    (path / "link").symlink_to(drop(path / "sub", "target", b"elsewhere"))
    growing = path / "growing"
    for n in range(6):
        with growing.open("ab") as file:
            file.write(b"%d" % n)
        assert adapter.receive(10, 0.1) == []
    assert bodies(adapter.receive(10, 3)) == [b"012345"]


def test_a_time_of_a_clock_that_is_ahead_does_not_keep_a_file_for_ever(
    path: Path, adapter: FolderAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.limits.FOLDER_SETTLED_S", 0.2)
    drop(path, "ahead", b"ahead", -86400)
    assert bodies(adapter.receive(10, 3)) == [b"ahead"]


def test_a_batch_is_bounded_in_bytes(path: Path, adapter: FolderAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.limits.FOLDER_BATCH_BYTES_MAX", 1000)
    for n in range(6):
        drop(path, f"{n}", bytes([n]) * 400, OLD_S - n)
    assert [len(adapter.receive(10, 0)) for _ in range(4)] == [2, 2, 2, 0]


def test_a_folder_that_is_gone_is_named_and_not_made_again(path: Path, adapter: FolderAdapter) -> None:
    path.rename(path.with_name("elsewhere"))
    for ask in (lambda: adapter.receive(1, 0), adapter.open):
        with pytest.raises(Unavailable, match=r"the watched folder .*watched cannot be .* \(.*No such file.*\): bring it back"):
            ask()
    assert not path.exists(), "an empty folder in the place of an unmounted one hides that it is gone"
    path.with_name("elsewhere").rename(path)
    drop(path, "a", b"a")
    adapter.open()
    assert bodies(adapter.receive(1, 0)) == [b"a"]
