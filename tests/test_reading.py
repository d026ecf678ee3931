"""Folders and texts as other systems leave them: links, copies, files of the system, byte-order marks, line ends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from mindvis.common.errors import InputError
from mindvis.common.texts import read_json, read_lines, read_record, read_table, read_text
from mindvis.data.images import read_picture, read_square
from mindvis.data.reading import (
    Names,
    PassedOver,
    files_below,
    list_folder,
    original_of,
    without_twins,
)

LINES = ["airport1.jpg", "zoo2.jpg"]


def test_links_to_folders_are_followed_once(tmp_path):
    """A link out of the tree is searched, one back into it is not: every file is found once."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.txt").write_text("")
    (tmp_path / "raw" / "a").mkdir(parents=True)
    (tmp_path / "raw" / "a" / "a.txt").write_text("")
    (tmp_path / "raw" / "away").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "raw" / "a" / "up").symlink_to(tmp_path / "raw")
    passed = PassedOver()
    found = [path.relative_to(tmp_path / "raw").as_posix() for path in files_below(tmp_path / "raw", passed)]
    assert found == ["a/a.txt", "away/b.txt"]
    assert passed.lines() == ["passed over 1: a link to a folder that is searched already (up)"]


def test_a_link_to_nothing_is_an_error(tmp_path):
    """A subject on a disk that is not mounted does not vanish."""
    (tmp_path / "100307").symlink_to(tmp_path / "unmounted")
    with pytest.raises(InputError, match="100307, a link to .*unmounted: cannot be read"):
        list_folder(tmp_path, PassedOver())


def test_a_folder_that_may_not_be_read_is_an_error(tmp_path, monkeypatch):
    """As for a user without the rights (root has them all, so the refusal is made up)."""

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "iterdir", refuse)
    with pytest.raises(InputError, match="the folder cannot be read .Permission denied."):
        files_below(tmp_path, PassedOver())


def test_files_of_systems_and_copies_are_passed_over_with_a_word(tmp_path):
    """Hidden files, those of Windows, and copies of what is beside them; a name that only looks like one stays."""
    for name in ("._a.txt", ".DS_Store", "Thumbs.db", "a.txt", "a (1).txt", "a - Copy.txt", "b copy.txt", "c (2).txt"):
        (tmp_path / name).write_text("")
    passed = PassedOver()
    assert [path.name for path in list_folder(tmp_path, passed)] == ["a.txt", "b copy.txt", "c (2).txt"]
    assert passed.lines() == [
        "passed over 2: hidden (.DS_Store, ._a.txt)",
        "passed over 1: left by the operating system (Thumbs.db)",
        "passed over 2: copies of what is beside them (a (1).txt, a - Copy.txt)",
    ]


@pytest.mark.parametrize(
    ("name", "original"),
    [
        ("sbj_1 (1).npz", "sbj_1.npz"),
        ("sbj_1(2).npz", "sbj_1.npz"),
        ("sbj_1 - Copy.npz", "sbj_1.npz"),
        ("sbj_1 - Copy (3).npz", "sbj_1.npz"),
        ("Copy of sbj_1.npz", "sbj_1.npz"),
        ("sbj_1_copy.npz", "sbj_1.npz"),
        ("100307 - Kopie", "100307"),
        ("sbj_1 \u2013 Copy.npz", "sbj_1.npz"),
        ("sbj_1 (copy).npz", "sbj_1.npz"),
        ("Kopie von sbj_1.npz", "sbj_1.npz"),
        ("sbj_1_(1).npz", "sbj_1.npz"),
        ("sbj_1_old.npz", "sbj_1.npz"),
        ("sbj_1-backup.npz", "sbj_1.npz"),
        ("sbj_1 (conflicted copy 2024-05-01).npz", "sbj_1.npz"),
        ("sbj_1.sync-conflict-20240501-120000-ABCDEFG.npz", "sbj_1.npz"),
        ("sbj_10.npz", None),
        ("sbj_1.npz", None),
        ("n01518878_5958.JPEG", None),
    ],
)
def test_the_original_of_a_copy(name, original):
    """The ways in which browsers and file managers name a second copy."""
    assert original_of(name) == original


def test_the_same_bytes_under_a_name_with_an_ending_are_a_copy(tmp_path, caplog):
    """Of files of subjects; the same bytes under another name are named in the log and kept."""
    contents = {"sbj_1": b"a", "sbj_01": b"a", "sbj_1-1": b"a", "sbj_1_roi": b"b", "sbj_10": b"a"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    passed, paths = PassedOver(), [tmp_path / name for name in sorted(contents)]
    assert [path.name for path in without_twins(paths, passed, sorted(contents))] == ["sbj_1", "sbj_10", "sbj_1_roi"]
    assert passed.lines() == ["passed over 2: the same bytes as sbj_1 (sbj_01, sbj_1-1)"]
    assert "sbj_10: holds the same bytes as sbj_1 and counts as another subject" in caplog.text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", " \n\n", "\t\r\n"])
def test_lines_of_any_system(tmp_path, encoding, end):
    """Byte-order marks, line ends and blanks leave the names as they are."""
    (tmp_path / "list.txt").write_bytes(("".join(name + end for name in LINES)).encode(encoding))
    assert read_lines(tmp_path / "list.txt") == LINES


def test_text_in_an_unknown_encoding_is_refused(tmp_path):
    """Latin-1 cannot be told from other encodings; binary data is no text."""
    (tmp_path / "a.txt").write_bytes("fenêtre.jpg".encode("latin-1"))
    with pytest.raises(InputError, match="no text in utf-8 .*, needs to be saved as UTF-8"):
        read_text(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_bytes(b"a\0b")
    with pytest.raises(InputError, match="holds binary data"):
        read_text(tmp_path / "a.txt")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_of_any_spreadsheet(tmp_path, separator):
    """Commas, semicolons and tabs, quoted or not."""
    (tmp_path / "t.csv").write_text(f'"1518878.005958"{separator} 3\r\n1639765.000065{separator}4', newline="")
    assert read_table(tmp_path / "t.csv") == [["1518878.005958", "3"], ["1639765.000065", "4"]]


def test_json_with_a_mark(tmp_path):
    """As PowerShell writes it."""
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf["a"]\r\n')
    assert read_json(tmp_path / "a.json") == ["a"]


@pytest.mark.parametrize("content", ["[1]", "3", "null", "{", "[" * 10**5, "\0", ""])
def test_a_record_is_an_object_with_names(tmp_path, content):
    """What a step noted, when a crash or an editor has made something else of it."""
    (tmp_path / "record.json").write_text(content)
    with pytest.raises(InputError, match="record.json: "):
        read_record(tmp_path / "record.json")


def test_names_are_found_where_that_is_certain():
    """Another case, blanks, split accents; not where two names are alike."""
    names = Names(["Airport1.JPG", "e\u0301.jpg", "a.jpg", "A.jpg"])
    assert names.find("airport1.jpg ") == "Airport1.JPG"
    assert names.find("\u00e9.jpg") == "e\u0301.jpg"
    assert names.find("a.jpg") == "a.jpg"
    assert names.find("a.JPG") is None
    with pytest.raises(InputError, match="list: 1 missing, 'b.jpg' first"):
        names.find_all(["a.jpg", "b.jpg"], "list: {count} missing, {first} first")


@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    """No malformed file ends in another exception."""
    path = tmp_path_factory.mktemp("fuzz") / "f"
    path.write_bytes(content)
    for read in (read_lines, read_table, read_json, read_picture):
        try:
            read(path)
        except InputError as error:
            assert "\n" not in str(error)


def test_pictures_are_turned_as_their_exif_says(tmp_path):
    """A photograph taken upright with a turned camera is upright."""
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    turned = np.asarray(read_picture(tmp_path / "a.png"))
    assert turned.shape == (16, 8, 3)
    assert turned[:8].min() == 255 and turned[8:].max() == 0


def text_chunk(path):
    notes = PngImagePlugin.PngInfo()
    notes.add_text("note", "x" * 3_000_000, zip=True)
    Image.new("RGB", (4, 4)).save(path, pnginfo=notes)


def bomb(path):
    Image.new("1", (20_000, 20_000)).save(path)


def cut_header(path):
    Image.new("RGB", (40, 40)).save(path, format="TIFF")
    path.write_bytes(path.read_bytes()[:12])


@pytest.mark.parametrize("make", [text_chunk, bomb, cut_header])
def test_pictures_that_pillow_refuses(tmp_path, make):
    """Whatever its decoders raise becomes one line that names the file."""
    make(tmp_path / "a.png")
    with pytest.raises(InputError, match="a.png: ") as caught:
        read_square(tmp_path / "a.png", 8)
    assert "\n" not in str(caught.value)
