"""Pictures with captions: drawn ones that are always the same, and a person's own from a folder."""

import json

import numpy as np
import pytest
from PIL import Image

from fedpeft.data.pictures import CLIENTS, PICTURES, PictureFolder, Shapes, load_pictures
from fedpeft.errors import DataError


def test_shapes_are_the_same_every_time_and_differ_between_people():
    one, again = Shapes().pictures("person-00"), Shapes().pictures("person-00")
    assert len(Shapes().client_ids()) == CLIENTS
    assert len(one) == PICTURES
    assert all(a.text == b.text and np.array_equal(a.pixels, b.pixels) for a, b in zip(one, again, strict=True))
    vocabularies = [{word for p in Shapes().pictures(c) for word in p.text.split()} for c in Shapes().client_ids()]
    assert len({frozenset(v) for v in vocabularies}) > CLIENTS // 2


def test_the_caption_says_where_the_shape_is():
    for picture in Shapes().pictures("person-05"):
        coloured = picture.pixels.astype(int).max(axis=2) - picture.pixels.astype(int).min(axis=2) > 60
        rows, columns = np.nonzero(coloured)
        assert (rows.mean() > 16) == any(word in picture.text for word in ("bottom", "lower"))
        assert (columns.mean() > 16) == ("right" in picture.text)


@pytest.fixture
def folder(tmp_path):
    Image.fromarray(np.full((8, 12, 3), 200, np.uint8)).save(tmp_path / "cat.png")
    (tmp_path / "ada.jsonl").write_text(json.dumps({"image": "cat.png", "text": " our cat "}) + "\n\n")
    return tmp_path


def test_a_folder_of_pictures_is_read(folder):
    federation = load_pictures(str(folder))
    assert federation.client_ids() == ["ada"]
    (picture,) = federation.pictures("ada")
    assert (picture.text, picture.pixels.shape, picture.pixels.dtype) == ("our cat", (8, 12, 3), np.uint8)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"image": "cat.png"}', "an object such as"),
        ("[1]", "an object such as"),
        ('{"image": "cat.png", "text": " "}', "not empty"),
        ('{"image": "dog.png", "text": "x"}', "an image that can be read"),
        ('{"image": "ada.jsonl", "text": "x"}', "an image that can be read"),
        ('{"image": "../secret.png", "text": "x"}', "below the folder"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(folder, line, complaint):
    (folder / "ada.jsonl").write_text(line)
    with pytest.raises(DataError, match=complaint) as caught:
        PictureFolder(folder).pictures("ada")
    assert "ada.jsonl:1" in str(caught.value)


def test_an_unknown_name_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match="shapes"):
        load_pictures("shape")
    with pytest.raises(DataError, match="at least one"):
        load_pictures(str(tmp_path))
