"""Small files are written whole, or not at all."""

from pathlib import Path

import pytest

from fakegan.system.files import building_folder, csv_table, read_csv, replacing


@pytest.mark.parametrize("durable", [False, True])
def test_the_last_good_file_stays_until_the_new_one_is_whole(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "status.json"
    path.write_text("old")

    def fails() -> None:
        with replacing(path, durable) as building:
            building.write_text("ne")
            assert path.read_text() == "old"
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        fails()
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]
    assert path.read_text() == "old"
    good = tmp_path / "good.json"
    good.write_text("of one that was killed, and longer")
    (tmp_path / ".status.json.building").hardlink_to(good)  # killed while it gave a good file a second name
    with replacing(path, durable) as building:
        building.write_text("new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["good.json", "status.json"]
    assert path.read_text() == "new"
    assert good.read_text() == "of one that was killed, and longer"


def test_a_new_folder_has_nothing_of_the_one_before(tmp_path: Path) -> None:
    """test_store.py tests the rest of `building_folder`: failures, kills, mount points, two processes."""
    for names in (("images", "rejected", "manifest"), ("images", "manifest")):
        with building_folder(tmp_path / "faces", last="manifest", durable=True) as building:
            for name in names:
                (building / name).touch()
        assert {path.name for path in (tmp_path / "faces").iterdir()} == set(names)
    assert [path.name for path in tmp_path.iterdir()] == ["faces"]


def test_a_table_keeps_every_name_and_is_begun_once(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    for name in ("a,\n b", "\udcff"):
        with csv_table(path, ("file", "score"), append=True) as rows:
            rows.writerow((name, 1))
    assert read_csv(path) == [{"file": "a,\n b", "score": "1"}, {"file": "\udcff", "score": "1"}]
    with csv_table(path, ("file",), errors="backslashreplace") as rows:
        rows.writerow(("\udcff",))
    assert path.read_bytes() == b"file\n\\udcff\n"
    path.write_bytes(b"file\n" + b"x" * 200_000)
    with pytest.raises(ValueError, match=r"table\.csv is no table"):  # a field larger than the library's limit
        read_csv(path)
