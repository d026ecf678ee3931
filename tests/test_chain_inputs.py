"""What a chain's digests of data cover."""

import pytest

from mindvis.chain.record import FileHashes, data_files

FILES = {
    "god": ["sbj_1.npz", "sbj_3.npz", "images_256.npz", "imagenet_class_index.json"],
    "mosaic": ["sub-01_NSD.hdf5", "sub-03_GOD.hdf5"],
    "nsd": ["subj01/subject.npz", "subj01/betas_session01.npy", "subj02/subject.npz"],
}
CHOSEN = {
    "god": ("sbj_3", ["imagenet_class_index.json", "images_256.npz", "sbj_3.npz"]),
    "mosaic": ("sub-03_GOD", ["sub-03_GOD.hdf5"]),
    "nsd": ("subj01", ["subj01/betas_session01.npy", "subj01/subject.npz"]),
}


@pytest.fixture
def root(tmp_path, request):
    for name in [*FILES[request.param], "notes.md", "nsd_stimuli.hdf5.txt"]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    return tmp_path


@pytest.mark.parametrize(("root", "name"), [(name, name) for name in FILES], indirect=["root"])
def test_files_are_those_of_the_chosen_subjects(root, name):
    """All of them where none is chosen; nothing else that lies there."""
    found = data_files({"name": name, "root": str(root), "subjects": []})
    assert [str(path.relative_to(root)) for path in found] == sorted(FILES[name])
    subject, wanted = CHOSEN[name]
    found = data_files({"name": name, "root": str(root), "subjects": [subject]})
    assert [str(path.relative_to(root)) for path in found] == wanted


def test_a_digest_follows_the_files_and_not_hidden_ones(tmp_path):
    """A copy that a file manager hides beside the data changes nothing; the data itself does."""
    data = tmp_path / "data"
    data.mkdir()
    hashes = FileHashes(tmp_path / "hashes.json")
    (data / "a.npz").write_text("a")
    before = hashes.of_files(data.glob("*"), data)
    (data / "._a.npz").write_text("x")
    assert hashes.of_files(data.glob("*"), data) == before
    (data / "b.npz").write_text("b")
    assert hashes.of_files(data.glob("*"), data) != before
