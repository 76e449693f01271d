"""CelebA from made-up files in the official layout: splits, the cut and its size, decoding once, and a line for every fault."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from face_layouts import make_celeba

from sepbench.data.datasets import open_dataset
from sepbench.data.files.fetch import FoundData
from sepbench.data.image_sets import CELEBA32
from sepbench.data.readers import celeba
from sepbench.data.readers.celeba import Faces, read_partition
from sepbench.errors import DataError

PIL_Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_celeba(tmp_path_factory.mktemp("faces"), train=6, validation=3, test=4)


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(folder, tmp_path / "celeba")
    return tmp_path / "celeba"


@pytest.mark.parametrize(("split", "numbers"), [("train", range(1, 7)), ("validation", range(7, 10)), ("test", range(10, 14))])
def test_splits_are_those_of_the_partition(folder: Path, split: str, numbers: range) -> None:
    assert read_partition(folder, split) == [folder / "img_align_celeba" / f"{number:06d}.jpg" for number in numbers]


def test_lines_decide_and_not_the_order_of_names(own: Path) -> None:
    (own / "list_eval_partition.txt").write_text("000003.jpg 1\r\n000001.jpg  1\n\n000002.jpg 0\n000009.jpg 2")
    assert [path.name for path in read_partition(own, "validation")] == ["000003.jpg", "000001.jpg"]
    assert [path.name for path in read_partition(own, "test")] == ["000009.jpg"]


def test_an_image_is_its_middle_made_smaller(folder: Path) -> None:
    """Rows 39 to 178 and columns 19 to 158 of 218 x 178."""
    faces = Faces("celeba32", "test", read_partition(folder, "test"))
    with PIL_Image.open(folder / "img_align_celeba" / "000011.jpg") as image:
        middle = np.asarray(image)[39:179, 19:159]
    expected = np.asarray(PIL_Image.fromarray(middle).resize((32, 32), PIL_Image.Resampling.BILINEAR))
    loaded = faces.load([1, 3, 1])
    assert (loaded.shape, loaded.dtype) == ((3, 3, 32, 32), torch.float32)
    assert torch.equal(loaded[0], torch.from_numpy(expected.transpose(2, 0, 1) / np.float32(255)))
    assert torch.equal(loaded[0], loaded[2])
    assert not torch.equal(loaded[0], loaded[1])
    # the filter sees all pixels: each small one is about the mean of its 4.375 x 4.375
    coarse = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(middle.transpose(2, 0, 1).copy()).double() / 255, 4)
    torch.testing.assert_close(torch.nn.functional.adaptive_avg_pool2d(loaded[0].double(), 4), coarse, atol=0.02, rtol=0)


def test_what_it_says_of_itself(folder: Path) -> None:
    faces = CELEBA32.open("celeba32", "validation", FoundData(folder, ""))
    assert (faces.name, faces.split, faces.domain, faces.shape, len(faces)) == ("celeba32", "validation", "image", (3, 32, 32), 3)
    assert torch.equal(faces.labels, torch.zeros(3, dtype=torch.int64))
    assert CELEBA32.open("celeba32", "validation", FoundData(folder, "")) is faces
    assert len(CELEBA32.open("celeba32", "train", FoundData(folder, ""))) == 6
    assert CELEBA32.splits == ("train", "validation", "test")
    with pytest.raises(ValueError, match="'celeba32' is read from the files of 'celeba', and was handed none"):
        CELEBA32.open("celeba32", "test", None)


def test_a_file_is_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = celeba.opened_image
    monkeypatch.setattr(celeba, "opened_image", lambda path: (opened.append(path.name), real(path))[1])
    faces = Faces("celeba32", "test", read_partition(folder, "test"))
    first = faces.load([2, 0])
    assert torch.equal(faces.load(torch.tensor([0, 2])), first.flip(0))
    assert opened == ["000012.jpg", "000010.jpg"]


def test_equal_files_have_equal_digests_and_nothing_is_decoded(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = own / "img_align_celeba"
    shutil.copyfile(images / "000010.jpg", images / "000012.jpg")
    monkeypatch.setattr(celeba, "opened_image", lambda path: pytest.fail("decoded"))
    faces = Faces("celeba32", "test", read_partition(own, "test"))
    digests = faces.content_hashes(torch.tensor([0, 1, 2]))
    assert digests[0] == digests[2] == hashlib.sha256((images / "000010.jpg").read_bytes()).digest() != digests[1]
    (images / "000013.jpg").unlink()
    with pytest.raises(DataError, match=r"000013\.jpg cannot be read: No such file or directory"):
        faces.content_hashes(torch.tensor([3]))


def test_it_is_a_data_set_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEPBENCH_DATA", str(folder.parent))
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path / "cache"))
    assert [len(open_dataset("celeba32", split)) for split in ("train", "validation", "test")] == [6, 3, 4]
    monkeypatch.setenv("SEPBENCH_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"no list_eval_partition\.txt, img_align_celeba/\*\.jpg in .*; download Img/img_align_celeba\.zip"):
        open_dataset("celeba32", "test")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("000001.jpg 0\n000002.jpg\n", "line 2: expected a file name and 0, 1 or 2, got '000002.jpg'; replace the file"),
        ("image_id,partition\n000001.jpg,0\n", "line 1: expected a file name and 0, 1 or 2, got 'image_id,partition'; replace the file"),
        ("000001.jpg 3\n", "line 1: expected a file name and 0, 1 or 2, got '000001.jpg 3'; replace the file"),
        ("../000001.jpg 0\n", "line 1: expected a file name and 0, 1 or 2, got '../000001.jpg 0'; replace the file"),
        ("000001.jpg 2 0\n", "line 1: expected a file name and 0, 1 or 2, got '000001.jpg 2 0'; replace the file"),
        ("000001.jpg 2\n\n000001.jpg 0\n", "line 3: 000001.jpg is there twice; replace the file"),
        ("000001.jpg 0\n", " has no image of the test split (2); replace the file"),
        ("", " has no image of the test split (2); replace the file"),
    ],
)
def test_a_partition_that_is_none_is_one_line(own: Path, text: str, says: str) -> None:
    path = own / "list_eval_partition.txt"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_partition(own, "test")
    assert str(caught.value) == f"{path}{', ' if says.startswith('line') else ''}{says}"


def test_a_partition_that_cannot_be_read_is_one_line(own: Path) -> None:
    path = own / "list_eval_partition.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"list_eval_partition\.txt is no text; replace the file"):
        read_partition(own, "test")
    path.unlink()
    with pytest.raises(DataError, match="cannot be read: No such file or directory; check that the file is there and readable"):
        read_partition(own, "test")


@pytest.mark.parametrize(
    ("size", "mode", "says"),
    [((178, 217), "RGB", "is 178 x 217 RGB"), ((218, 178), "RGB", "is 218 x 178 RGB"), ((178, 218), "L", "is 178 x 218 L")],
)
def test_another_image_is_refused(own: Path, size: tuple[int, int], mode: str, says: str) -> None:
    path = own / "img_align_celeba" / "000010.jpg"
    PIL_Image.new(mode, size).save(path)
    with pytest.raises(DataError) as caught:
        Faces("celeba32", "test", read_partition(own, "test")).load([0])
    assert str(caught.value) == f"{path} {says}; aligned images of CelebA are 178 x 218 RGB: unpack img_align_celeba.zip"


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_a_damaged_or_missing_image_is_one_line(own: Path, content: bytes | None) -> None:
    path = own / "img_align_celeba" / "000010.jpg"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"000010\.jpg cannot be ") as caught:
        Faces("celeba32", "test", read_partition(own, "test")).load([1, 0])
    assert "\n" not in str(caught.value)
