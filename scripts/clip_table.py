"""How well do the shipped CLIP and the judge read pictures? With intervals, on val and on every held-out set.

    python scripts/clip_table.py [--out FILE]      # some 2 minutes on one CPU core

Of each model, on each split: captions whose picture is found first, or among the first five, of the split's; style,
skin tone and gender read right, of all their values; the CLIP score (w = 2.5) of the true captions, and how far below
it that of controls is: captions of other pictures, and captions with one attribute wrong. In the row "all", the
captions of val are sought among all these pictures. Prints a table and writes data/results/clip.json, for notebook 11.

The held-out sets report. They are not to choose by; yet how training draws and moves pictures (`balance`, `zoom` and
`turn` of the recipe) was set when an earlier table had been seen. Val favoured the same.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from manifest import head, record, weights
from torch import Tensor
from tqdm.auto import tqdm

from ddpm_edu import captions, pretrained
from ddpm_edu.data import DATA, EMOJI_SPLITS, Emoji, emoji
from ddpm_edu.metrics import bootstrap, clip_score, retrieval, wilson
from ddpm_edu.nets.clip import CLIP
from ddpm_edu.recipes.clip import embed_images, embed_texts
from ddpm_edu.tokenizer import Tokenizer

SPLITS = EMOJI_SPLITS[1:]  # all but train
OUT, W, RESAMPLES, SEED = DATA / "results" / "clip.json", 2.5, 1000, 0

Number = dict[str, float]


def share(right: Tensor | float, n: int) -> Number:
    """The share of n, and its 95 % interval (Wilson). right: answers (n,) bool, or the share itself."""
    right = right.double().mean().item() if isinstance(right, Tensor) else right
    low, high = wilson(round(right * n), n)
    return {"share": round(right, 4), "low": round(low, 4), "high": round(high, 4), "n": n}


def mean(values: Tensor) -> Number:
    """The mean of values (n,), one a picture, and its 95 % interval (bootstrap over the pictures)."""
    low, high = bootstrap(values, RESAMPLES, generator=torch.Generator().manual_seed(SEED))
    return {"mean": round(values.double().mean().item(), 4), "low": round(low, 4), "high": round(high, 4)}


def below(true: Tensor, control: Tensor) -> Number:
    """How far below the true captions' scores, (n,), those of a control are, picture by picture; its mean `score`."""
    return mean(true - control) | {"score": round(control.double().mean().item(), 4), "n": len(true)}


def others(n: int) -> Tensor:
    """Each of n pictures gets another's caption: one cycle through all of them, drawn at random. (n,) int64."""
    cycle = torch.randperm(n, generator=torch.Generator().manual_seed(SEED))
    return torch.empty_like(cycle).scatter_(0, cycle, cycle.roll(1))


def said_of(rows: Sequence[Emoji]) -> list[str]:
    """Every text that the table needs, once: the captions, and those with an attribute at each of its values."""
    texts = {row.caption for row in rows}
    for row in rows:
        texts.update(text for name in captions.VALUES for text in captions.swapped(row, name).values())
    return sorted(texts, key=lambda text: (len(text), text))  # texts of about one length: little to fill up


def embed(model: CLIP, texts: Sequence[str], by: Tokenizer) -> dict[str, Tensor]:
    """The embedding (d,) of each text."""
    parts = [texts[i : i + 250] for i in range(0, len(texts), 250)]
    return {
        text: one
        for part in tqdm(parts, desc="texts")
        for text, one in zip(part, embed_texts(model, part, by), strict=True)
    }


def measure(image: Tensor, rows: Sequence[Emoji], text: dict[str, Tensor]) -> dict[str, object]:
    """One row of the table. image: (n, d), the pictures' embeddings; text: those of all that is said of them."""
    n, own = len(rows), torch.stack([text[row.caption] for row in rows])
    true = clip_score(image, own, W)
    reads: dict[str, Number] = {}
    controls: dict[str, Number] = {"shuffled": below(true, clip_score(image, own[others(n)], W))}
    for name, values in captions.VALUES.items():
        found = [(k, row, said) for k, row in enumerate(rows) if (said := captions.swapped(row, name))]
        if not found:
            continue
        which = torch.tensor([k for k, _, _ in found])
        each = torch.stack([torch.stack([text[said[value]] for value in values]) for _, _, said in found])  # (m, v, d)
        score = clip_score(image[which].repeat_interleave(len(values), 0), each.flatten(0, 1), W).view(len(found), -1)
        cosine = (each @ image[which][..., None])[..., 0]
        right = torch.tensor([values.index(getattr(row, name)) for _, row, _ in found])
        reads[name] = share(cosine.argmax(1) == right, len(found))
        wrong = (score.sum(1) - true[which]) / (len(values) - 1)
        controls[name] = below(true[which], wrong)
    found_at = {f"top_{k}": share(retrieval(image, own, k), n) for k in (1, 5)}
    return {"n": n, **found_at, "reads": reads, "score": mean(true), "below": controls}


def table(name: str) -> dict[str, dict]:
    """All rows of one shipped model, by split."""
    recipe, model = pretrained.read(pretrained.shipped(name))
    sets = {split: emoji(split) for split in SPLITS}
    text = embed(model, said_of([row for one in sets.values() for row in one.rows]), captions.tokenizer(recipe.merges))
    image = {split: embed_images(model, one.images) for split, one in tqdm(sets.items(), desc="pictures")}
    rows: dict[str, dict] = {split: measure(image[split], one.rows, text) for split, one in sets.items()}
    own = torch.stack([text[row.caption] for row in sets["val"].rows])
    every = torch.cat([image[split] for split in SPLITS])  # val's first, so that caption i belongs to picture i
    found_at = {f"top_{k}": share(retrieval(every, own, k), len(own)) for k in (1, 5)}
    return rows | {"all": {"n": len(own), "pictures": len(every), **found_at}}


def show(name: str, rows: dict[str, dict]) -> None:
    def line(one: Number) -> str:
        middle = one["share"] if "share" in one else one["mean"]
        return f"{middle:.3f} [{one['low']:.3f}, {one['high']:.3f}]"

    for split, row in rows.items():
        print(f"\n{name}, {split}: {row['n']} captions, {row.get('pictures', row['n'])} pictures")
        print(f"  found first {line(row['top_1'])}, among five {line(row['top_5'])}")
        for attribute, one in row.get("reads", {}).items():
            print(f"  {attribute:9s} read right {line(one)} of {one['n']}")
        if "score" in row:
            print(f"  CLIP score {line(row['score'])}")
            for control, one in row["below"].items():
                print(f"  {control:9s} {one['score']:.3f}, below it by {line(one)} of {one['n']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=OUT, help="the file to write (default: data/results/clip.json)")
    options = parser.parse_args()
    models = {}
    for name in ("clip", "judge"):
        models[name] = table(name)
        show(name, models[name])
    kept = {"w": W, "level": 0.95, "resamples": RESAMPLES, "seed": SEED, "weights": weights(*models), "models": models}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    if options.out == OUT:
        record(
            "results/clip.json",
            what="what CLIP and the judge find and read, and their CLIP scores beside controls, for notebook 11",
            licence="MIT",
            command="python scripts/clip_table.py",
            commit=head(),
        )


if __name__ == "__main__":
    main()
