"""C24 and C25 of the shipped text-to-image model: how often each part works, what the text is worth, what w does."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest
import torch
from stats import Z, seeded
from torch import Tensor

from ddpm_edu import captions, pretrained
from ddpm_edu.data import Emoji, asset, emoji
from ddpm_edu.denoiser import Denoiser
from ddpm_edu.metrics import bootstrap, clip_score
from ddpm_edu.nets.clip import CLIP
from ddpm_edu.objectives import diffusion_errors
from ddpm_edu.recipes.clip import embed_images, embed_texts
from ddpm_edu.recipes.text2image import Text2Image

STEPS = 12  # fewer than a picture deserves, enough to tell one from another


class Shipped(NamedTuple):
    """The shipped model, and the judge, which has trained nothing of it.

    images, rows: 100 pictures of val drawn at random, and what they show.
    """

    recipe: Text2Image
    model: Denoiser
    judge: CLIP
    images: Tensor
    rows: list[Emoji]


@pytest.fixture(scope="module")
def shipped() -> Shipped:
    recipe, model = pretrained.read(pretrained.shipped("text2image"))
    images, rows = emoji("val")
    which = torch.randperm(len(rows), generator=seeded())[:100]
    return Shipped(recipe, model, pretrained.load("judge"), images[which], [rows[i] for i in which.tolist()])


@torch.no_grad()
def made(shipped: Shipped, texts: list[str], w: float | None = None, noise: Tensor | None = None) -> Tensor:
    """A picture for each text, (n, 64, 64, 3) uint8, from noise of one seed unless given."""
    if noise is None:
        noise = torch.randn(len(texts), *shipped.recipe.noise_shape, generator=seeded(4))
    *_, x_0 = shipped.recipe.states(shipped.model, noise, STEPS, texts, w)
    return shipped.recipe.codec.decode(x_0)


def scores(shipped: Shipped, images: Tensor, texts: list[str]) -> Tensor:
    """The judge's cosine of every picture with every text: (n, m)."""
    by = captions.tokenizer()
    return embed_images(shipped.judge, images) @ embed_texts(shipped.judge, texts, by).T


class Asked(NamedTuple):
    """Twelve captions of val and what was made of them."""

    texts: list[str]
    images: Tensor
    scores: Tensor  # (12, 12), of pictures with captions


@pytest.fixture(scope="module")
def asked(shipped: Shipped) -> Asked:
    texts = [row.caption for row in shipped.rows[:12]]
    images = made(shipped, texts)
    return Asked(texts, images, scores(shipped, images, texts))


# The parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.claim("C24")
@torch.no_grad()
def test_c24_text_encoder_first_denoiser_at_every_step_decoder_once(shipped: Shipped):
    """Guidance asks the denoiser twice, with the sentences and with the empty text, at four of these five steps: not at
    t = T, where it does not guide. Each text is read once."""
    recipe, model = shipped.recipe, shipped.model
    order: list[str] = []
    parts = {"text": recipe._clip[1].text, "denoiser": model.net, "decoder": recipe.codec.vae.decoder}
    hooks = [part.register_forward_hook(lambda *_, name=name: order.append(name)) for name, part in parts.items()]
    try:
        noise = torch.randn(3, *recipe.noise_shape, generator=seeded())
        *_, x_0 = recipe.states(model, noise, 5, ["a rose", "a castle", "an owl"])
        pictures = recipe.codec.decode(x_0)
    finally:
        for hook in hooks:
            hook.remove()
    assert order == 2 * ["text"] + 9 * ["denoiser"] + ["decoder"]
    assert x_0.shape == (3, 4, 16, 16)
    assert pictures.shape == (3, 64, 64, 3)
    assert pictures.dtype == torch.uint8


@pytest.mark.claim("C24")
def test_c24_the_model_was_trained_on_latents_of_deviation_1(shipped: Shipped):
    """Of training pictures, within 2 % with the scale in its file; without it they are not."""
    images = emoji("train").images
    z = shipped.recipe.codec.encode(images[torch.randperm(len(images), generator=seeded(1))[:400]])
    squares = (z - z.mean()).double().square().flatten(1).mean(1)
    error = (squares.std() / 400**0.5).item() / 2  # of the deviation, which is near 1
    assert error < 0.007
    assert z.std().item() == pytest.approx(1, abs=0.02)
    assert abs((z / shipped.recipe.scale).std().item() - 1) > 0.05


# The text -------------------------------------------------------------------------------------------------------------


@pytest.mark.claim("C24")
@torch.no_grad()
def test_c24_the_true_caption_says_more_than_another_or_none(shipped: Shipped):
    """The loss on pictures of val, at the same noises and times: lower with the picture's own caption than with that of
    the next picture, and than with the empty text, by more than 5 standard errors of the paired difference."""
    recipe, own = shipped.recipe, [row.caption for row in shipped.rows]
    said = {"own": own, "next": own[1:] + own[:1], "empty": len(own) * [""]}
    x_0 = recipe.codec.encode(shipped.images)
    found = {name: torch.zeros(len(own)) for name in said}
    for draw in range(4):
        t = torch.randint(300, 901, (len(own),), generator=seeded(10 + draw))  # where much is left to guess
        eps = torch.randn(x_0.shape, generator=seeded(20 + draw))
        for name, texts in said.items():
            found[name] += diffusion_errors(shipped.model, x_0, t, eps, recipe.read(texts)) / 4
    for name in ("next", "empty"):
        more = found[name] - found["own"]
        assert more.mean() > Z * more.std() / len(more) ** 0.5


@pytest.mark.claim("C24")
def test_c24_pictures_fit_their_sentence_better_than_the_others(asked: Asked):
    """The judge's CLIP score (w = 2.5) of each picture with its own caption, less the mean with the other eleven; and
    of the twelve captions its own is the nearest for half of them or more, of which chance would make one."""
    score = 2.5 * asked.scores.clamp(min=0)
    own = score.diagonal()
    others = (score.sum(1) - own) / (len(own) - 1)
    assert bootstrap(own - others, generator=seeded()).low > 0.3
    assert (asked.scores.argmax(1) == torch.arange(12)).sum() >= 6


@pytest.mark.claim("C24")
def test_c24_one_seed_and_one_sentence_are_one_picture(shipped: Shipped, asked: Asked):
    """Again the same; another seed, another picture."""
    noise = torch.randn(12, *shipped.recipe.noise_shape, generator=seeded(4))[:2]
    again = made(shipped, asked.texts[:2], noise=noise)
    assert (again.int() - asked.images[:2].int()).abs().max() <= 8  # two at a time instead of twelve: rounding
    assert torch.equal(made(shipped, asked.texts[:2], noise=noise), again)
    other = made(shipped, asked.texts[:2], noise=noise.flip(0))
    assert ((other.int() - again.int()).abs().double().mean((1, 2, 3)) > 4).all()


STYLED = ("a {} style panda", "a {} style rose", "a {} style owl", "a {} style red heart", "a {} style castle",
          "a {} style sailboat", "a {} style pizza", "a {} style crescent moon")  # fmt: skip
TONED = ("a noto style man cook, {} skin tone", "a fluent style woman judge, {} skin tone",
         "a twemoji style woman astronaut, {} skin tone", "a fluent 3d style man teacher, {} skin tone",
         "a noto style raised fist, {} skin tone", "a twemoji style thumbs up, {} skin tone",
         "a fluent style boy, {} skin tone", "a fluent 3d style waving hand, {} skin tone")  # fmt: skip


@pytest.mark.claim("C24")
@pytest.mark.parametrize(
    ("texts", "values"), [(STYLED, ("twemoji", "fluent 3d")), (TONED, ("light", "dark"))], ids=["style", "tone"]
)
def test_c24_a_word_of_the_sentence_changes_the_picture_as_it_says(
    shipped: Shipped, texts: tuple[str, ...], values: tuple[str, str]
):
    """From one noise, with one word swapped: another picture; and to the judge each is nearer to its own sentence, the
    other's being the same but for the word."""
    n = len(texts)
    said = [text.format(value) for value in values for text in texts]
    noise = torch.randn(n, *shipped.recipe.noise_shape, generator=seeded(6)).repeat(2, 1, 1, 1)
    images = made(shipped, said, noise=noise)
    one, other = images.int().split(n)
    s = scores(shipped, images, said)
    k = torch.arange(n)
    margin = s[k, k] + s[k + n, k + n] - s[k, k + n] - s[k + n, k]
    assert ((one - other).abs().double().mean((1, 2, 3)) > 3).all()
    assert bootstrap(margin, generator=seeded()).low > 0
    if values == ("light", "dark"):  # and without a judge
        darker = (one - other).double().mean((1, 2, 3))
        assert bootstrap(darker, generator=seeded()).low > 0


# Guidance -------------------------------------------------------------------------------------------------------------


@pytest.mark.claim("C25")
def test_c25_at_w_0_the_sentence_is_ignored(shipped: Shipped, asked: Asked):
    """One noise and two sentences: the same picture. At the recipe's w they differ."""
    noise = torch.randn(1, *shipped.recipe.noise_shape, generator=seeded(7)).repeat(2, 1, 1, 1)
    texts = ["a noto style red heart", "a fluent 3d style panda"]
    one, other = made(shipped, texts, w=0, noise=noise).int()
    assert (one - other).abs().max() <= 8  # rounding
    one, other = made(shipped, texts, noise=noise).int()
    assert (one - other).abs().double().mean() > 10


@pytest.mark.claim("C25")
def test_c25_pictures_fit_their_sentences_once_w_is_above_0(shipped: Shipped, asked: Asked):
    """The judge's CLIP score at w = 1 and at the recipe's w, each less that at w = 0, paired by caption and noise."""
    text = embed_texts(shipped.judge, asked.texts, captions.tokenizer())
    none, plain = (clip_score(embed_images(shipped.judge, made(shipped, asked.texts, w)), text) for w in (0.0, 1.0))
    guided = clip_score(embed_images(shipped.judge, asked.images), text)
    for one in (plain, guided):
        assert bootstrap(one - none, generator=seeded()).low > 0.3


@pytest.mark.claim("C25")
@torch.no_grad()
def test_c25_at_first_guidance_pushes_the_same_way_whatever_the_noise(shipped: Shipped):
    """Why the recipe guides from t = 900 on: where hardly anything is to be seen, the push on the guess x_0 hangs on
    the sentence alone, and is a good part of the picture's size; later it depends on what is there, and is small."""
    x_0 = shipped.recipe.codec.encode(shipped.images[:16])
    cond, null = shipped.recipe.read([row.caption for row in shipped.rows[:16]]), shipped.recipe.read([""])
    process, alike, size = shipped.model.process, {}, {}
    for t in (999, 900, 500):
        pushes = []
        for seed in (5, 6):
            eps = torch.randn(x_0.shape, generator=seeded(seed))
            x_t = process.a[t].float() * x_0 + process.b[t].float() * eps
            pushes.append((shipped.model(x_t, t, cond).x_0 - shipped.model(x_t, t, null).x_0).flatten(1))
        alike[t] = torch.cosine_similarity(*pushes).mean()
        size[t] = torch.cat(pushes).norm(dim=1).mean() / x_0.flatten(1).norm(dim=1).mean()
    assert alike[999] > 0.9 > 0.75 > alike[900]
    assert size[999] > 0.4
    assert size[500] < size[999] / 3


@pytest.mark.claim("C25")
def test_c25_guided_late_enough_pictures_are_nearer_to_real_ones():
    """By the kept table: w = 3 from the start on, against from t = 900 on; and to the end, against to t = 200."""
    rows = json.loads(asset("results/text2image_guidance.json").read_text("utf-8"))["rows"]
    kid = {tuple(row["between"]): row["kid"] for row in rows if row["w"] == 3}
    for late, early in (((0.2, 0.9), (0.2, 1.0)), ((0.0, 0.9), (0.0, 1.0))):
        assert kid[late]["high"] < kid[early]["low"]


@pytest.mark.parametrize("split", ["val", "test_tone", "test_pair", "test_gender", "test_style", "test_near"])
@pytest.mark.claim("C23")
def test_c23_the_best_of_several_by_clip_is_better_by_the_judge(split: str):
    """By the kept table, caption by caption: the judge, who did not choose, scores the chosen picture higher."""
    kept = json.loads(asset("results/text2image.json").read_text("utf-8"))
    assert kept["best"][split]["gain"]["low"] > 0
