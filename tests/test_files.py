"""Small files are written whole, or not at all."""

from pathlib import Path

import pytest

from fakegan.system.files import replacing


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
    (tmp_path / ".status.json.building").write_text("of one that was killed, and longer")
    with replacing(path, durable) as building:
        building.write_text("new")
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]
    assert path.read_text() == "new"
