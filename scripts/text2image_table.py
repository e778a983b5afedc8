"""How good is the text-to-image model? Measured by the judge, which trained nothing, on val and on every held-out set.

    python scripts/text2image_table.py [--seeds 0 1 2]      # some 10 minutes a seed on two CPU cores

For every caption of a split and every seed one picture, 25 steps of DDIM, guided by w = 3 where the recipe guides; and
once more the best of four, chosen by the CLIP whose text encoder the model reads with. Of each split:

score    the judge's CLIP score (w = 2.5) of generated pictures with their captions; of the real pictures; of the real
         pictures as the autoencoder gives them back, the best that any denoiser can do; and of the real pictures with
         the captions of others (shuffled). `way` is how far generated pictures have come from shuffled to real.
below    how much lower generated pictures score with one attribute of the caption wrong, by attribute, and real ones,
         which tells what the judge can see of it; `held_out` names the one that the split holds out.
gain     of the best of four alone: how far it scores above the one picture, caption by caption.
reads    attributes that the judge reads off generated pictures as the caption says, and off real ones.
kid      of generated against real pictures, in the judge's features, pairs left out, times 1,000; beside it that of the
         autoencoder's reconstructions.
nearest  the largest cosine, in the judge's space, of any training picture with a generated one and with a real one:
         median and the largest tenth; and the share of generated pictures nearer to a training picture than 95 % of
         the real ones are.

All with 95 % intervals over pictures (of the mean over the seeds); `spread` is the deviation over seeds. Features are
kept in runs/text2image_table, so a killed run goes on. Writes data/results/text2image.json, and 24 pictures of captions
that no training picture has, twelve of them people and twelve things, drawn at random, with the autoencoder's best
below each, into data/results/text2image.webp. The held-out sets report; when and how far to guide was chosen on val.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import torch
from autoencoder_parts import kid_interval
from clip_table import SPLITS, Number, below, embed, mean, others, said_of, share
from manifest import head, record, weights
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ddpm_edu import captions, checkpoint, pretrained, viz
from ddpm_edu.data import DATA, ROOT, Emoji, emoji, manifest
from ddpm_edu.metrics import clip_score, paired_kid
from ddpm_edu.recipes import Text2Image
from ddpm_edu.recipes.clip import embed_images
from ddpm_edu.training import precision

OUT, RUNS = DATA / "results" / "text2image.json", ROOT / "runs" / "text2image_table"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEPS, W, SCORE_W, SEEDS, BEST_OF = 25, 3.0, 2.5, (0, 1, 2), 4
HELD_OUT = {
    "test_tone": "tone", "test_pair": "tones", "test_gender": "gender", "test_style": "style", "test_near": "style",
    "test_colour": "colour",
}  # fmt: skip


@torch.no_grad()
def draw(
    recipe: Text2Image,
    model: Any,
    rows: Sequence[Emoji],
    seed: int,
    name: str,
    w: float = W,
    between: tuple[float, float] | None = None,
    best_of: int = 1,
) -> Tensor:
    """A picture for each caption, (n, 64, 64, 3) uint8, guided by w at the times `between`, the recipe's unless told;
    of several, the one that fits best by the recipe's own eye. Kept under its name, with what drew it."""
    if best_of > 1:  # the first is that of best_of = 1
        several = [draw(recipe, model, rows, seed + 1000 * k, name, w, between) for k in range(best_of)]
        captions_of = [row.caption for row in rows]
        best = torch.stack([recipe.fit(one, captions_of) for one in several]).argmax(0)
        return torch.stack(several)[best, torch.arange(len(rows))]
    by = [manifest()["checkpoints/text2image.safetensors"]["sha256"], STEPS, w, list(between or recipe.between)]
    path = RUNS / f"{name}, seed {seed}.safetensors"
    if path.exists() and (kept := checkpoint.load(path)).get("by") == by:
        return kept["images"]
    noise = torch.randn(len(rows), *recipe.noise_shape, generator=torch.Generator().manual_seed(seed))
    parts = []
    for i in tqdm(range(0, len(rows), 32), f"{name}, seed {seed}"):
        texts = [row.caption for row in rows[i : i + 32]]
        with precision(DEVICE).autocast():
            *_, made = recipe.states(model, noise[i : i + 32].to(DEVICE), STEPS, texts, w, between)
        parts.append(recipe.codec.decode(made.float()).cpu())
    RUNS.mkdir(parents=True, exist_ok=True)
    checkpoint.save(path, {"by": by, "images": torch.cat(parts)})
    return torch.cat(parts)


def exchanged(rows: Sequence[Emoji], split: str) -> list[str | None]:
    """Each caption with what the split holds out wrong, where one word or two are it; else None. Two people's tones
    change places; a colour becomes another of the split's."""
    colours = sorted({row.base.split()[0] for row in rows}) if split == "test_colour" else []

    def one(row: Emoji) -> str | None:
        if split == "test_pair" and row.tone2 and row.tone2 != row.tone:
            return row.caption.replace(f"{row.tone} skin tone, {row.tone2}", f"{row.tone2} skin tone, {row.tone}")
        if split == "test_colour":
            colour = row.base.split()[0]
            return row.caption.replace(colour, colours[(colours.index(colour) + 1) % len(colours)])
        return None

    return [said if (said := one(row)) != row.caption else None for row in rows]


def way(generated: Tensor, shuffled: Tensor, real: Tensor) -> Number:
    """(generated - shuffled) / (real - shuffled), of the means, with its interval over pictures. (n,) each."""
    which = torch.randint(len(real), (1000, len(real)), generator=torch.Generator().manual_seed(0))
    g, s, r = (x.double()[which].mean(1) for x in (generated, shuffled, real))
    low, high = ((g - s) / (r - s)).quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    whole = (generated.mean() - shuffled.mean()) / (real.mean() - shuffled.mean())
    return {"mean": round(whole.item(), 4), "low": round(low, 4), "high": round(high, 4)}


def nearest(image: Tensor, train: Tensor) -> Tensor:
    """The largest cosine of any training picture with each: (n,)."""
    return torch.cat([(part @ train.T).amax(1) for part in image.split(500)])


def scored(made: Sequence[Tensor], rows: Sequence[Emoji], text: dict[str, Tensor]) -> list[Tensor]:
    """The CLIP score of each picture with its caption: (n,) a seed."""
    own = torch.stack([text[row.caption] for row in rows])
    return [clip_score(image, own, SCORE_W) for image in made]


def measure(
    split: str, made: Sequence[Tensor], real: Tensor, again: Tensor, train: Tensor, text: Any
) -> dict[str, Any]:
    """One row of the table. Embeddings by the judge: made, one (n, d) a seed; real; again, what the autoencoder gives
    back; train: all training pictures."""
    rows = emoji(split).rows
    n, own = len(rows), torch.stack([text[row.caption] for row in rows])
    seeds = scored(made, rows, text)
    generated = torch.stack(seeds).mean(0)
    true, back = scored([real, again], rows, text)
    shuffled = clip_score(real, own[others(n)], SCORE_W)
    result: dict[str, Any] = {
        "n": n,
        "held_out": HELD_OUT.get(split, ""),
        "score": {
            "generated": mean(generated) | {"spread": spread([one.mean() for one in seeds])},
            "real": mean(true),
            "autoencoder": mean(back),
            "shuffled": mean(shuffled),
        },
        "way": way(generated, shuffled, true)
        | {"spread": spread([(one.mean() - shuffled.mean()) / (true.mean() - shuffled.mean()) for one in seeds])},
    }
    reads: dict[str, Any] = {}
    controls: dict[str, Any] = {}
    for name, values in captions.VALUES.items():
        found = [(k, row, said) for k, row in enumerate(rows) if (said := captions.swapped(row, name))]
        if not found:
            continue
        which = torch.tensor([k for k, _, _ in found])
        each = torch.stack([torch.stack([text[said[value]] for value in values]) for _, _, said in found])  # (m, v, d)
        right = torch.tensor([values.index(getattr(row, name)) for _, row, _ in found])

        def read(image: Tensor, each: Tensor = each, which: Tensor = which, right: Tensor = right) -> Tensor:
            return (each @ image[which][..., None])[..., 0].argmax(1) == right

        shares = [read(image).double().mean() for image in made]
        reads[name] = {
            "generated": share(torch.stack(shares).mean().item(), len(found)) | {"spread": spread(shares)},
            "real": share(read(real), len(found)),
        }

        def wrong(image: Tensor, own_score: Tensor, each: Tensor = each, which: Tensor = which) -> Tensor:
            """The mean score with the other values of the attribute: (m,)."""
            score = clip_score(image[which].repeat_interleave(each.shape[1], 0), each.flatten(0, 1), SCORE_W)
            return (score.view(len(which), -1).sum(1) - own_score[which]) / (each.shape[1] - 1)

        mistaken = torch.stack([wrong(*one) for one in zip(made, seeds, strict=True)]).mean(0)
        controls[name] = {
            "generated": below(generated[which], mistaken),
            "real": below(true[which], wrong(real, true)),
        }
    said = exchanged(rows, split)
    if any(said):
        which = torch.tensor([k for k, one in enumerate(said) if one])
        wrong_text = torch.stack([text[one] for one in said if one])
        mistaken = torch.stack([clip_score(image[which], wrong_text, SCORE_W) for image in made]).mean(0)
        controls[HELD_OUT[split]] = {
            "generated": below(generated[which], mistaken),
            "real": below(true[which], clip_score(real[which], wrong_text, SCORE_W)),
        }
    result |= {"reads": reads, "below": controls}
    for name, image in {"kid": made[0], "kid_autoencoder": again}.items():
        features = [one.double() * one.shape[1] ** 0.5 for one in (image, real)]  # of unit size a number, as in 12
        low, high = kid_interval(*features)
        values = {"mean": paired_kid(*features), "low": low, "high": high}
        result[name] = {key: round(1000 * value, 3) for key, value in values.items()}
    near = {"generated": nearest(made[0], train), "real": nearest(real, train)}
    result["nearest"] = {
        name: {"median": round(x.median().item(), 4), "tenth": round(x.quantile(0.9).item(), 4)}
        for name, x in near.items()
    } | {"nearer": share(near["generated"] > near["real"].quantile(0.95), n)}
    return result


def spread(values: Sequence[Tensor]) -> float:
    """Deviation over the seeds; 0 of one."""
    return round(torch.stack(list(values)).std().item(), 4) if len(values) > 1 else 0.0


def unseen(people: int = 12, things: int = 12) -> list[tuple[str, int]]:
    """Captions that no training picture has, drawn at random from val and the held-out sets: (split, place)."""
    where = [(split, k) for split in SPLITS for k in range(len(emoji(split).rows))]
    order = [where[k] for k in torch.randperm(len(where), generator=torch.Generator().manual_seed(0)).tolist()]
    of_people = [emoji(split).rows[k].group == "people-body" for split, k in order]
    chosen = [[at for at, one in zip(order, of_people, strict=True) if one == wanted] for wanted in (True, False)]
    return chosen[0][:people] + chosen[1][:things]


def show(rows: dict[str, Any]) -> None:
    def line(one: Number) -> str:
        middle = one.get("mean", one.get("share"))
        return f"{middle:.3f} [{one['low']:.3f}, {one['high']:.3f}]"

    for split, row in rows.items():
        print(f"\n{split}: {row['n']} captions; holds out {row['held_out'] or 'nothing but the pictures'}")
        print("  score   ", ", ".join(f"{name} {line(one)}" for name, one in row["score"].items()))
        print("  way     ", line(row["way"]))
        for name, one in row["reads"].items():
            both = f"{line(one['generated'])}, off real ones {line(one['real'])} of {one['real']['n']}"
            print(f"  {name:8s} read right {both}")
        for name, one in row["below"].items():
            both = f"{line(one['generated'])}, real ones by {line(one['real'])} of {one['real']['n']}"
            print(f"  {name:8s} wrong: lower by {both}")
        if "gain" in row:
            print("  gain    ", line(row["gain"]))
        print("  1000 KID", line(row["kid"]), "autoencoder", line(row["kid_autoencoder"]))
        print("  nearest ", row["nearest"])


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    options = parser.parse_args()
    recipe, model = pretrained.read(pretrained.shipped("text2image"))
    judge_recipe, judge = pretrained.read(pretrained.shipped("judge"))
    assert isinstance(recipe, Text2Image)
    model.to(DEVICE)
    judge.to(DEVICE)
    train = embed_images(judge, emoji("train").images)
    sets = {split: emoji(split) for split in SPLITS}
    texts = said_of([row for one in sets.values() for row in one.rows])
    texts += [said for split, one in sets.items() for said in exchanged(one.rows, split) if said and said not in texts]
    text = embed(judge, texts, captions.tokenizer(judge_recipe.merges))
    rows: dict[int, dict[str, Any]] = {1: {}, BEST_OF: {}}
    drawn: dict[str, list[Tensor]] = {}  # the best of several
    for split, (images, about) in sets.items():
        real = embed_images(judge, images)
        again = embed_images(judge, recipe.codec.decode(recipe.codec.encode(images)).cpu())
        of_seeds: list[Tensor] = []
        for best_of in rows:
            drawn[split] = [draw(recipe, model, about, seed, split, best_of=best_of) for seed in options.seeds]
            made = [embed_images(judge, one) for one in drawn[split]]
            rows[best_of][split] = measure(split, made, real, again, train, text)
            of_seeds.append(torch.stack(scored(made, about, text)).mean(0))
        rows[BEST_OF][split]["gain"] = mean(of_seeds[1] - of_seeds[0])
    for best_of in rows:
        print(f"\n{'one picture' if best_of == 1 else f'the best of {best_of} by the text encoder of the model'}")
        show(rows[best_of])
    shown = unseen()
    best = {split: recipe.codec.decode(recipe.codec.encode(one.images)).cpu() for split, one in sets.items()}
    pictures = torch.stack([torch.stack([drawn[split][0][k], best[split][k]]) for split, k in shown])  # (24, 2, ...)
    sheet = viz.grid(pictures.unflatten(0, (3, 8)).transpose(1, 2).flatten(0, 2), columns=8, gap=2)
    Image.fromarray(sheet).save(DATA / "results" / "text2image.webp", quality=92, method=6)
    kept = {
        "judge": "judge",
        "steps": STEPS,
        "w": W,
        "score_w": SCORE_W,
        "seeds": list(options.seeds),
        "best_of": BEST_OF,
        "weights": weights("text2image", "autoencoder", "clip", "judge"),
        "rows": rows[1],
        "best": rows[BEST_OF],
        "shown": [{"split": split, "caption": sets[split].rows[k].caption} for split, k in shown],
    }
    OUT.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    about_it = {"licence": "MIT", "command": "python scripts/text2image_table.py", "commit": head()}
    record("results/text2image.json", what="the text-to-image model measured by the judge, for notebook 13", **about_it)
    record(
        "results/text2image.webp",
        what="24 captions that no training picture has, drawn by the text-to-image model (seed 0, the best "
        "of four), each above what the autoencoder gives back of the real picture",
        **about_it,
    )


if __name__ == "__main__":
    main()
