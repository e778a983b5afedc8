"""C23: what the CLIP score is, what it depends on, which controls it needs, and who may judge."""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from stats import seeded
from torch import Tensor

from ddpm_edu import captions, objectives, pretrained, recipes, training
from ddpm_edu.data import Emoji, emoji
from ddpm_edu.metrics import bootstrap, clip_score, wilson
from ddpm_edu.nets.clip import CLIP
from ddpm_edu.objectives import contrastive_loss
from ddpm_edu.recipes.clip import Judge, embed_images, embed_texts

W = 2.5
MOST = 150  # pictures of a split that are looked at: enough for an interval, quick on one core
CHANCE = {name: 1 / len(values) for name, values in captions.VALUES.items()}
# Every attribute that a split has pictures of; two people's tones are never swapped.
READ = [
    ("val", "style"), ("val", "tone"), ("val", "gender"),
    ("test_tone", "tone"), ("test_tone", "gender"), ("test_gender", "gender"), ("test_gender", "tone"),
    ("test_pair", "style"), ("test_style", "style"), ("test_near", "style"),
]  # fmt: skip


@cache
def model(name: str) -> CLIP:
    return pretrained.load(name)


@cache
def looked_at(split: str, name: str = "judge") -> tuple[tuple[Emoji, ...], Tensor]:
    """At most MOST pictures of a split, drawn at random, and their embeddings (n, d)."""
    images, rows = emoji(split)
    which = torch.randperm(len(rows), generator=seeded())[:MOST]
    return tuple(rows[i] for i in which.tolist()), embed_images(model(name), images[which])


def said(texts: list[str], name: str = "judge") -> Tensor:
    return embed_texts(model(name), texts, captions.tokenizer())


@cache
def true(split: str, name: str = "judge") -> Tensor:
    """The embeddings of the pictures' own captions, (n, d)."""
    return said([row.caption for row in looked_at(split, name)[0]], name)


@cache
def swapped(split: str, attribute: str) -> tuple[Tensor, Tensor]:
    """Which pictures have the attribute, (m,), and their captions with each of its values, the true one first:
    (m, values, d)."""
    which, texts = [], []
    for k, row in enumerate(looked_at(split)[0]):
        if ways := captions.swapped(row, attribute):
            which.append(k)
            texts += [row.caption, *(text for text in ways.values() if text != row.caption)]
    assert len(texts) == len(which) * len(captions.VALUES[attribute])
    return torch.tensor(which), said(texts).view(len(which), len(captions.VALUES[attribute]), -1)


def scores(image: Tensor, texts: Tensor) -> Tensor:
    """(m, d) and (m, k, d) -> (m, k)."""
    flat = clip_score(image[:, None].expand_as(texts).flatten(0, 1), texts.flatten(0, 1), W)
    return flat.view(texts.shape[:2])


# The formula ----------------------------------------------------------------------------------------------------------


@pytest.mark.claim("C23")
def test_c23_torchmetrics_has_the_same_score_with_w_100():
    """What its CLIPScore makes of our embeddings, a stand-in model handing them over: the same but for w."""
    from torchmetrics.functional.multimodal import clip_score as theirs

    generator = seeded(3)
    image, text = torch.randn(2, 40, 16, generator=generator)
    text = 0.5 * image + text
    hands_over = SimpleNamespace(
        config=SimpleNamespace(),
        get_image_features=lambda pixels: pixels[:, 0, 0],
        get_text_features=lambda ids, mask: ids,
    )
    hands_over.to = lambda device: hands_over

    def processor(text=None, images=None, **options):
        if images is not None:
            return {"pixel_values": torch.stack(images)}
        ids = torch.tensor([[float(v) for v in one.split()] for one in text])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    for k in range(0, 40, 8):  # theirs is max(mean of 100 cos, 0), so one pair at a time
        pixels, words = image[k : k + 1, None, None], " ".join(map(str, text[k].tolist()))
        found = theirs(pixels[0], words, lambda: (hands_over, processor))
        torch.testing.assert_close(found, clip_score(image[k : k + 1], text[k : k + 1], 100.0)[0])
        torch.testing.assert_close(found / 40, clip_score(image[k : k + 1], text[k : k + 1], W)[0])


@pytest.mark.claim("C23")
def test_c23_w_is_a_unit_lengths_do_not_count_and_what_is_below_0_is_0():
    _, image = looked_at("val")
    text = true("val")
    cosine = (image.double() * text.double()).sum(1)
    for w in (1.0, W, 100.0):
        expected = (w * cosine.clamp(min=0)).float()
        torch.testing.assert_close(clip_score(7 * image, 0.3 * text, w), expected, rtol=1e-4, atol=1e-5)
    assert (clip_score(image, -text, W)[cosine > 0] == 0).all()
    shuffled = text.roll(1, 0)
    cut = clip_score(image, shuffled, 1.0).mean()
    assert cut > (image * shuffled).sum(1).mean()  # the cut at 0 lifts the control: some cosines are below


@pytest.mark.claim("C23")
@pytest.mark.parametrize("size", [2, 3])
def test_c23_the_logit_of_least_loss_is_the_pointwise_mutual_information(size: int):
    """Of a table of 3 pictures and 3 captions, every batch of `size` pairs counted, by the course's own loss: its
    gradient vanishes at log p(x, y) / (p(x) p(y)) and not elsewhere, and log b - loss stays below the mutual
    information."""
    table = torch.tensor([[0.3, 0.05, 0.05], [0.02, 0.2, 0.08], [0.05, 0.1, 0.15]]).double()
    pmi = (table / table.sum(1, keepdim=True) / table.sum(0)).log()
    pairs = torch.cartesian_prod(torch.arange(3), torch.arange(3))

    def expected_loss(f: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.double)
        for batch in torch.cartesian_prod(*[torch.arange(9)] * size):
            x, y = pairs[batch].unbind(1)
            # Vectors whose products are the logits: one-hot captions, and pictures that hold their row of f.
            total = total + table[x, y].prod() * contrastive_loss(f[x], F.one_hot(y, 3).double(), 1.0)
        return total

    def gradient(f: Tensor) -> tuple[Tensor, Tensor]:
        f = f.clone().requires_grad_()
        loss = expected_loss(f)
        return loss.detach(), torch.autograd.grad(loss, f)[0]

    least, at_pmi = gradient(pmi + 0.7)
    assert at_pmi.abs().max() < 1e-12
    information = (table * pmi).sum()
    assert 0 < math.log(size) - least < min(information, math.log(size))
    for k in range(2):
        f = pmi + torch.randn(3, 3, generator=seeded(k)).double()
        loss, at_f = gradient(f)
        assert loss > least
        assert at_f.abs().max() > 1e-4


# Controls, by the judge -----------------------------------------------------------------------------------------------


@pytest.mark.claim("C23")
@pytest.mark.parametrize(
    "split", ["val", "test_tone", "test_pair", "test_gender", "test_style", "test_near", "test_colour"]
)
def test_c23_the_caption_of_another_picture_scores_lower(split: str):
    """Pair by pair, by more than chance, on val and on what training held out. Against captions of val, near 0."""
    rows, image = looked_at(split)
    own, n = clip_score(image, true(split), W), len(rows)
    shuffled = clip_score(image, true(split).roll(1, 0), W)
    assert bootstrap(own - shuffled, generator=seeded()).low > 0
    strangers = clip_score(image, true("val").roll(1, 0)[:n], W)  # of val too, its row i is not picture i
    assert strangers.mean() < 0.25 * own.mean()


@pytest.mark.claim("C23")
@pytest.mark.parametrize(("split", "attribute"), READ)
def test_c23_one_wrong_attribute_lowers_the_score_and_less_than_a_wrong_caption(split: str, attribute: str):
    _, image = looked_at(split)
    which, texts = swapped(split, attribute)
    found = scores(image[which], texts)  # the true caption first
    below = found[:, 0] - found[:, 1:].mean(1)
    assert bootstrap(below, generator=seeded()).low > 0
    strangers = clip_score(image[which], true("val").roll(1, 0)[: len(which)], W)
    # So a score that is high does not say that all of the caption is right.
    assert bootstrap(found[:, 1:].mean(1) - strangers, generator=seeded()).low > 0


@pytest.mark.claim("C23")
@pytest.mark.parametrize(("split", "attribute"), READ)
def test_c23_the_judge_reads_the_attributes_that_it_vouches_for(split: str, attribute: str):
    """Of all values said in the caption the true one is nearest, more often than by chance: Wilson's interval."""
    _, image = looked_at(split)
    which, texts = swapped(split, attribute)
    right = int((scores(image[which], texts).argmax(1) == 0).sum())
    assert wilson(right, len(which)).low > CHANCE[attribute]


# Who judges -----------------------------------------------------------------------------------------------------------


def climb(optimised: str, text: Tensor, seed: int, steps: int = 40) -> Tensor:
    """Noise, its pixels changed by gradient ascent on the cosine with texts (b, d): (b, 3, 64, 64)."""
    net = model(optimised)
    x = (0.3 * torch.randn(len(text), 3, 64, 64, generator=seeded(seed))).clamp(-1, 1).requires_grad_()
    optimiser = torch.optim.Adam([x], lr=0.02)
    for _ in range(steps):
        loss = -(net.embed_image(x) * text).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        x.data.clamp_(-1, 1)
    return x.detach()


@pytest.mark.claim("C23")
@pytest.mark.parametrize(("optimised", "other"), [("clip", "judge"), ("judge", "clip")])
def test_c23_the_encoder_that_is_optimised_flatters_and_the_other_is_not_taken_in(optimised: str, other: str):
    """Noise that was made to please one encoder: it scores above the real pictures there, and has less than 0.3 of the
    gain with the other. It holds both ways, so it is not that one of them sees better."""
    n = 6
    texts = [row.caption for row in looked_at("val")[0][:n]]
    by = {name: said(texts, name) for name in (optimised, other)}
    real = {name: clip_score(looked_at("val", name)[1][:n], by[name], W).mean() for name in by}
    before, after = climb(optimised, by[optimised], 0, steps=0), climb(optimised, by[optimised], 0)
    with torch.no_grad():
        first, last = (
            {name: clip_score(model(name).embed_image(x), by[name], W) for name in by} for x in (before, after)
        )
    assert last[optimised].mean() > real[optimised]
    assert last[other].mean() < real[other] / 2
    gain = {name: (last[name] - first[name]).mean() for name in by}
    assert gain[other] < 0.3 * gain[optimised]


@pytest.mark.claim("C23")
def test_c23_the_judge_has_trained_nothing_that_it_judges():
    """No recipe and no loss names it, but for its own; it is another network, from another start, than the CLIP whose
    text encoder conditions."""
    for path in (*Path(recipes.__file__).parent.glob("*.py"), Path(objectives.__file__), Path(training.__file__)):
        named = re.findall(r"""["']judge["']""", path.read_text("utf-8"))
        assert len(named) == (path.name == "clip.py"), path.name
    recipe, judge = pretrained.read(pretrained.shipped("judge"))
    other, clip = pretrained.read(pretrained.shipped("clip"))
    assert isinstance(recipe, Judge)
    assert not isinstance(other, Judge)
    assert recipe.seed != other.seed
    shapes = [[p.shape for p in net.parameters()] for net in (judge, clip)]
    assert shapes[0] != shapes[1]


@pytest.mark.claim("C23")
def test_c23_scores_of_two_encoders_are_not_comparable():
    """The same pictures and captions: two encoders differ from picture to picture by more than w / 50 on average, and
    do not even rank the pictures alike."""
    one, two = (clip_score(looked_at("val", name)[1], true("val", name), W) for name in ("clip", "judge"))
    assert (one - two).abs().mean() > W / 50
    rank = torch.stack([score.argsort().argsort().double() for score in (one, two)])
    assert torch.corrcoef(rank)[0, 1] < 0.95
