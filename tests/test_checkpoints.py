from pathlib import Path
from typing import Any

import pytest
import torch

from fakegan.errors import FakeganError
from fakegan.runs import checkpoints, stamp
from fakegan.runs.checkpoints import load_checkpoint, save_checkpoint


def test_whatever_a_training_holds_comes_back(tmp_path: Path) -> None:
    """Tensors of any kind, shared, empty and in another order; nothing that the checks on a file take for foreign."""
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    kinds = (torch.bfloat16, torch.float16, torch.float64, torch.uint8, torch.int32, torch.bool)
    whole = torch.arange(10.0)
    content = {
        "net": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "kinds": [torch.ones(2, dtype=kind) for kind in kinds],
        "parts": (whole[2:4], whole[::3], torch.zeros(0, 32), torch.tensor(1.5)),
        "plain": {"n": None, "big": 2**70, "text": "ä", "flags": [True, 1.5]},
    }
    path = tmp_path / "deep" / "x.ckpt"
    save_checkpoint(content, path)
    assert [p.name for p in path.parent.iterdir()] == ["x.ckpt"]
    found = load_checkpoint(path)
    assert found["plain"] == content["plain"]
    assert [tensor.dtype for tensor in found["kinds"]] == list(kinds)
    assert [part.tolist() for part in found["parts"]] == [[2, 3], [0, 3, 6, 9], [], 1.5]
    for name, value in net.state_dict().items():
        assert torch.equal(found["net"][name], value)
    optimizer.load_state_dict(found["optimizer"])


def test_a_failed_write_leaves_the_last_good_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.ckpt"
    save_checkpoint({"n": 1}, path)

    def full_disk(content: Any, file: Any, _: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(FakeganError, match=r"x\.ckpt could not be written .*No space"):
        save_checkpoint({"n": 2}, path)
    assert load_checkpoint(path)["n"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["x.ckpt"]


def test_damage_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    with pytest.raises(FakeganError, match="no checkpoint at"):
        load_checkpoint(path)
    for content in (b"", b"text", b"PK\x03\x04half"):
        path.write_bytes(content)
        with pytest.raises(FakeganError, match="damaged"):
            load_checkpoint(path)
    save_checkpoint({"n": 1}, path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(FakeganError, match="damaged"):
        load_checkpoint(path)
    torch.save({"n": 1}, path)
    with pytest.raises(FakeganError, match="not a FakeGAN checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize("url", ["https://example.org/x.ckpt", "s3://bucket/x.ckpt"])
def test_urls_are_refused(url: str) -> None:
    with pytest.raises(FakeganError, match="URL"):
        load_checkpoint(Path(url))


def test_another_label_convention_or_format_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.ckpt"
    for own, words in (
        ({"format": stamp.FORMAT, "label_convention": {"real": 1, "fake": 0}}, "scores would mean the opposite"),
        ({"format": 99, "label_convention": {"real": 0, "fake": 1}}, "format 99"),
    ):
        monkeypatch.setattr(checkpoints, "stamp", lambda own=own: own)
        save_checkpoint({"n": 1}, path)
        with pytest.raises(FakeganError, match=words):
            load_checkpoint(path)
