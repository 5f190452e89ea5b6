import numpy as np
import pytest

from karui.data.poly_music import load_music, read_mat
from karui.data.storage import data_root
from karui.errors import UserError
from tests.support.sequence_sets import mat, place_music, rolls


def test_sequences_of_a_split(tmp_path, monkeypatch):
    place_music(monkeypatch, tmp_path)
    sequences = load_music("jsb", "train")
    assert len(sequences) == 6
    assert all(s.dtype == np.uint8 and s.shape[1] == 88 and (s.sum(1) == 1).all() for s in sequences)
    assert sequences[2][0, 2] == sequences[2][1, 3] == 1
    assert len(load_music("jsb", "test")) == 2


def test_an_unknown_set_is_refused():
    with pytest.raises(
        UserError, match="bach: no set of music; the sets are jsb, nottingham, piano-midi, musedata"
    ):
        load_music("bach", "train")


def cells(*sequences):
    made = np.empty((1, len(sequences)), object)
    for number, sequence in enumerate(sequences):
        made[0, number] = sequence
    return made


GOOD = np.eye(88, dtype=np.uint8)[:4]
BAD = {
    "no such variable": (mat(other=np.zeros(3)), "has no list of sequences named traindata"),
    "a matrix": (mat(traindata=np.zeros((3, 88))), "has no list of sequences named traindata"),
    "87 notes": (mat(traindata=cells(GOOD, GOOD[:, :87])), "sequence 1 of traindata is no"),
    "one step": (mat(traindata=cells(GOOD[:1])), "sequence 0 of traindata is no"),
    "loudness": (mat(traindata=cells(GOOD * 3)), "matrix of zeros and ones"),
    "text": (mat(traindata=cells("abc", GOOD)), "sequence 0 of traindata is no"),
    "empty": (b"", "not a whole MATLAB file"),
    "no mat": (b"MATLAB 5.0 MAT-file" * 20, "not a whole MATLAB file"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD.keys())
def test_odd_files_are_one_line(tmp_path, content, message):
    path = tmp_path / "odd.mat"
    path.write_bytes(content)
    with pytest.raises(UserError, match="odd.mat") as raised:
        read_mat(path, "train")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    whole = mat(traindata=rolls("traindata", 6))
    path = tmp_path / "cut.mat"
    for length in range(0, len(whole) - 1, 37):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="cut.mat"):
            read_mat(path, "train")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "steps"), [("jsb", (13807, 4602, 4725)), ("nottingham", (176561, 45513, 44463))]
)
def test_the_published_files(name, steps):
    if not (data_root() / "poly_music").is_dir():
        pytest.skip("no poly_music below the data root")
    found = tuple(sum(map(len, load_music(name, split))) for split in ("train", "valid", "test"))
    assert found == steps
