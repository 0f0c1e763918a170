"""The table of facts in a folder: however it was written, its rows find their pictures, and every doubt is counted."""

import unicodedata
import warnings

import pytest
from PIL import Image

from experiments.ground_truth import facts_table, known_facts
from lib.images.image_set import load_images

NFC, NFD = (unicodedata.normalize(form, "café.png") for form in ("NFC", "NFD"))


@pytest.fixture
def read(tmp_path):
    """A function from a table of facts to the facts of a.png, b.png and c.png, and what is warned of them."""
    for name in "abc":
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")

    def read(table: str | bytes):
        (tmp_path / "facts.csv").write_bytes(table.encode() if isinstance(table, str) else table)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            facts = load_images(f"folder:{tmp_path}").facts
        assert len(said) <= 1
        return facts, str(said[0].message) if said else ""

    return read


WHOLE = "file_name,place,weight\na.png,forest,1.5\nb.png,sea,2\nc.png,sea,3\n"


def test_a_table_that_fits_warns_of_nothing(read):
    facts, said = read(WHOLE)
    assert facts.to_dict("list") == {"place": ["forest", "sea", "sea"], "weight": [1.5, 2, 3]}
    assert not said


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_every_separator_and_encoding_gives_the_same_facts(read, encoding, separator):
    table = WHOLE.replace("sea", "mer à l'été").replace(",", separator)
    facts, said = read(table.encode(encoding))
    assert facts.to_dict("list") == {"place": ["forest", "mer à l'été", "mer à l'été"], "weight": [1.5, 2, 3]}
    assert not said


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_lines_may_end_as_on_any_system(read, end):
    facts, said = read(WHOLE.replace("\n", end))
    assert facts.to_dict("list") == {"place": ["forest", "sea", "sea"], "weight": [1.5, 2, 3]}
    assert not said


def test_a_table_in_latin_1_is_read_and_said_to_be(read):
    facts, said = read(WHOLE.replace("sea", "forêt").encode("latin-1"))
    assert facts["place"].tolist() == ["forest", "forêt", "forêt"]
    assert "it is no UTF-8 and was read as Latin-1" in said


def test_numbers_beside_semicolons_may_have_a_decimal_comma(read):
    facts, _ = read("file_name;weight\na.png;1,5\nb.png;2\nc.png;0,25\n")
    assert facts["weight"].tolist() == [1.5, 2, 0.25]


def test_numbers_beside_tabs_may_have_a_decimal_comma_too(read):
    facts, _ = read("file_name\tweight\na.png\t1,5\nb.png\t2\nc.png\t0,25\n")
    assert facts["weight"].tolist() == [1.5, 2, 0.25]


def test_blanks_around_names_and_values_are_no_part_of_them(read):
    facts, _ = read('file_name , place , weight\na.png, forest, 1.5\nb.png, sea, 2\nc.png, "the sea, deep", 3\n')
    assert facts.to_dict("list") == {"place": ["forest", "sea", "the sea, deep"], "weight": [1.5, 2, 3]}


def test_quotation_marks_of_windows_are_none_of_latin_1s_control_characters(read):
    facts, _ = read(WHOLE.replace("forest", "“forêt”").encode("cp1252"))
    assert facts["place"][0] == "“forêt”"


def test_a_second_table_that_is_not_read_is_counted(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    for name in ("facts.csv", "metadata.csv"):
        (tmp_path / name).write_text("file_name,place\na.png,sea\n")
    with pytest.warns(UserWarning, match=r"1 file \(1 \.csv\), not read"):
        load_images(f"folder:{tmp_path}")


def test_a_separator_inside_quotes_is_part_of_a_value(read):
    facts, said = read('file_name,place\na.png,"forest, meadow"\nb.png,sea\nc.png,"the ""sea"""\n')
    assert facts["place"].tolist() == ["forest, meadow", "sea", 'the "sea"']
    assert not said


def test_na_is_a_word_among_words_and_missing_among_numbers(read):
    facts, said = read("file_name,country,weight,wild\na.png,NA,1.5,True\nb.png,None,NA,\nc.png,,3,False\n")
    assert facts["country"].tolist()[:2] == ["NA", "None"]
    assert facts["weight"].isna().tolist() == [False, True, False]
    assert facts["wild"].tolist()[::2] == [True, False]
    assert facts["country"].isna().tolist() == [False, False, True]
    assert "1 values of column country are the word NA, not missing" in said
    assert "None" in said
    assert {"country=NA", "country=None"} <= set(known_facts(facts, min_support=1).names)


def test_rows_of_no_picture_and_pictures_without_a_row_are_counted_and_named(read):
    facts, said = read("file_name,place\na.png,forest\nx.png,sea\ny.png,sea\n")
    assert facts["place"].fillna("").tolist() == ["forest", "", ""]
    assert "of 3 rows: 2 rows name no picture of the folder (x.png, y.png …)" in said
    assert "2 pictures have no row, such as b.png" in said


def test_names_in_another_unicode_form_match_and_are_counted(tmp_path):
    for written, on_disk in ((NFC, NFD), (NFD, NFC)):
        folder = tmp_path / str(len(on_disk))
        folder.mkdir()
        Image.new("RGB", (4, 4)).save(folder / on_disk)
        (folder / "facts.csv").write_text(f"file_name,place\n{written},forest\n", encoding="utf-8")
        with pytest.warns(UserWarning, match=r"1 names match only in the same Unicode form"):
            assert load_images(f"folder:{folder}").facts["place"].tolist() == ["forest"]


def test_of_two_files_in_different_unicode_forms_each_has_its_own_row(tmp_path):
    for name in (NFC, NFD):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("this file system has one form only")
    (tmp_path / "facts.csv").write_text(f"file_name,form\n{NFC},composed\n{NFD},decomposed\n", encoding="utf-8")
    images = load_images(f"folder:{tmp_path}")
    forms = {images.name(i): form for i, form in enumerate(images.facts["form"])}
    assert forms == {NFC: "composed", NFD: "decomposed"}


def test_names_written_on_windows_or_from_here_match(tmp_path):
    for name in ("cat/a.png", "cat/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "facts.csv").write_text("file_name,light\ncat\\a.png,dim\n./cat/b.png,bright\n")
    assert load_images(f"folder:{tmp_path}").facts["light"].tolist() == ["dim", "bright"]


def test_names_that_look_like_numbers_stay_names(tmp_path):
    (tmp_path / "0001").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "0001" / "007.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "NA.png")
    (tmp_path / "facts.csv").write_text("file_name,light\n0001/007.png,dim\nNA.png,bright\n")
    assert load_images(f"folder:{tmp_path}").facts["light"].tolist() == ["dim", "bright"]


def test_a_class_called_na_is_a_class(tmp_path):
    for name in ("NA", "owl"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "a.png")
    assert known_facts(facts_table(load_images(f"folder:{tmp_path}")), min_support=1).names == ["class=NA", "class=owl"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,place\na.png,sea\n", "name the files in a column file_name"),
        ("file_name,place\nx.png,sea\n", r"names no picture of the folder \(its first is x\.png\)"),
        ("file_name,place\na.png,sea\na.png,lake\nb.png,sea\nb.png,sea\n", r"several rows for a\.png and 1 other pict"),
        ("file_name,place,place\na.png,sea,lake\n", "several columns place; give each its own name"),
        ("file_name,place\n", "names no picture"),
        ("", "is empty: make or download it again"),
        ("file_name,place\na.png,sea,lake,river\nb.png\n", "has rows of more values than its first line has names"),
        ("version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ('file_name,place\n"a.png,sea\n', "facts.csv"),
        (b"\xff\xfef\0i\0l", "facts.csv cannot be read|does not say which picture"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "does not say which picture|cannot be read"),
        ("file_name,place\n" + "x" * 5000 + ",sea\n", "names no picture"),
        (f"file_name,place\na.png,{'sea' * 50_000}\n", "facts.csv cannot be read: field larger"),
        ("file_name" * 100_000 + "\n", "does not say which picture|cannot be read"),
    ],
)
def test_a_table_that_cannot_be_right_is_one_sentence_that_names_it(read, table, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(table)
    assert "facts.csv" in str(caught.value)
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def test_a_missing_or_foreign_table_of_a_data_set_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("MV_WATERBIRDS", str(tmp_path))
    for content in (b"", b"\xff\xfe\x00", b'img_filename,y,split,place,place_filename\n"a', bytes(range(256))):
        (tmp_path / "metadata.csv").write_bytes(content)
        with pytest.raises(ValueError, match=r"metadata\.csv"):
            load_images("waterbirds:train")
    monkeypatch.setenv("MV_DISENTANGLING", str(tmp_path))
    for content in (b"", b"[1, 2]", b'{"a": ', b"[" * 100_000, b"\xff"):
        (tmp_path / "annotations.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"annotations\.json"):
            load_images("disentangling")
    monkeypatch.setenv("MV_CELEBA", str(tmp_path))
    (tmp_path / "img_align_celeba").mkdir()
    for content in (b"", b"1\n", b"2\nA B\na.jpg x y\n", b"\x00\x01\x02"):
        for name in ("list_attr_celeba", "list_eval_partition"):
            (tmp_path / f"{name}.txt").write_bytes(content)
        with pytest.raises(ValueError, match=r"list_(attr|eval)_\w+\.txt"):
            load_images("celeba:train")


def test_numbers_with_a_decimal_comma_are_told_column_by_column(read):
    table = "file_name;score;price;note\na.png;0.05;1,5;seen 3,4 m\nb.png;0.15;2;3,4\nc.png;1;;x\n"
    facts, _ = read(table)
    assert facts["score"].tolist() == [0.05, 0.15, 1]
    assert facts["price"].tolist()[:2] == [1.5, 2]
    assert facts["note"].tolist() == ["seen 3,4 m", "3,4", "x"]


def test_one_slip_that_makes_words_of_numbers_and_rows_that_are_too_short_are_counted(read):
    facts, said = read("file_name,weight,place\na.png,1,sea\nb.png,3x,sea\nc.png,2,sea\n")
    assert facts["weight"].tolist() == ["1", "3x", "2"]
    assert "1 values of column weight are no numbers ('3x' …), so the column is text" in said
    facts, said = read("file_name,place,weight\na.png,sea,1\nb.png,sea\nc.png,sea,2\n")
    assert facts["weight"].isna().tolist() == [False, True, False]
    assert "1 rows have fewer values than the first line has names" in said
