"""C24: latent diffusion has three parts; what goes between them, at which scale, and what the decoder gives back."""

from __future__ import annotations

import inspect
import math
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from stats import seeded
from torch import Tensor

from ddpm_edu import captions, pretrained
from ddpm_edu.codec import Latents, Pixels
from ddpm_edu.data import emoji
from ddpm_edu.denoiser import Denoiser, v
from ddpm_edu.exercises.nb12 import noised_latent, scale_factor
from ddpm_edu.metrics import bootstrap, paired_kid, psnr
from ddpm_edu.nets.unet import UNet
from ddpm_edu.nets.vae import VAE, Normal
from ddpm_edu.objectives import autoencoder_losses
from ddpm_edu.process import Gaussian, Process
from ddpm_edu.recipes.autoencoder import rebuild
from ddpm_edu.recipes.clip import embed_images
from ddpm_edu.recipes.text2image import Text2Image
from ddpm_edu.samplers import ddim

MOST = 180  # pictures of val that are looked at: enough for an interval, quick on one core


class Shipped(NamedTuple):
    """The shipped autoencoder and what it makes of pictures of val drawn at random.

    images: (n, 64, 64, 3) uint8. styles: of each. x, y: (n, 3, 64, 64), pictures and what comes back of the mean of
    q(z | x). z, var: (n, 4, 16, 16), that mean and q's variance. s: the scale, of training pictures, and its error
    relative to itself.
    """

    vae: VAE
    images: Tensor
    styles: list[str]
    x: Tensor
    z: Tensor
    var: Tensor
    y: Tensor
    s: float
    error: float


def variance(z: Tensor) -> tuple[float, float]:
    """Of all numbers of z, (n, ...), and its standard error: over the rows, which are independent."""
    of_rows = (z - z.mean()).double().square().flatten(1).mean(1)
    return of_rows.mean().item(), (of_rows.std() / len(z) ** 0.5).item()


@pytest.fixture(scope="module")
def shipped() -> Shipped:
    vae = pretrained.load("autoencoder").to(memory_format=torch.channels_last)
    images, rows = emoji("val")
    which = torch.randperm(len(rows), generator=seeded())[:MOST]
    x, train = Pixels().encode(images[which]), Pixels().encode(emoji("train").images[::12])
    with torch.no_grad():
        z, y = rebuild(vae, x)
        var = torch.cat([vae.encode(part).var for part in x.split(60)])
        z_train = torch.cat([vae.encode(part).mean for part in train.split(60)])
    s = float(scale_factor(z_train))
    error = variance(s * z_train)[1]
    return Shipped(vae, images[which], [rows[i].style for i in which.tolist()], x, z, var, y, s, error)


# Three parts ----------------------------------------------------------------------------------------------------------


@pytest.mark.claim("C24")
@torch.no_grad()
def test_c24_text_then_denoiser_at_every_step_then_decoder_once(shipped: Shipped):
    """The whole chain, with a denoiser of random weights: shapes, and how often each part works on what."""
    clip, by = pretrained.load("clip"), captions.tokenizer()
    denoise = Denoiser(Process.cosine(), UNet(4, (32, 64), 1, (1,), d_cond=clip.text.d), v)
    given: dict[str, list[tuple]] = {"text": [], "denoiser": [], "decoder": []}
    for name, part in (("text", clip.text), ("denoiser", denoise.net), ("decoder", shipped.vae.decoder)):
        part.register_forward_hook(lambda _, inputs, __, name=name: given[name].append(inputs))
    words = clip.text(captions.read(["a castle in noto style", "a rose"], by))
    x_T = torch.randn(2, 4, 16, 16, generator=seeded())
    *_, last = ddim(denoise, x_T, denoise.process.timesteps(7), words)
    picture = shipped.vae(last.x_t / shipped.s)
    assert {name: len(calls) for name, calls in given.items()} == {"text": 1, "denoiser": 7, "decoder": 1}
    assert words.tokens.shape[::2] == (2, 192)
    assert last.x_t.shape == (2, 4, 16, 16)
    assert picture.shape == (2, 3, 64, 64)
    for x_t, t, cond in given["denoiser"]:  # latent, t and text; never a picture
        assert x_t.shape == (2, 4, 16, 16)
        assert t.shape == (2,)
        assert cond.tokens is words.tokens
    (inputs,) = given["decoder"]
    assert [one.shape for one in inputs] == [(2, 4, 16, 16)]  # the latent alone


@pytest.mark.claim("C24")
@torch.no_grad()
def test_c24_the_denoiser_reads_latent_text_and_time(shipped: Shipped):
    clip, by = pretrained.load("clip"), captions.tokenizer()
    net = UNet(4, (32, 64), 1, (1,), d_cond=clip.text.d).eval()
    for weight in net.parameters():  # fresh layers at 0 would ignore their input
        weight.add_(0.05 * torch.randn(weight.shape, generator=seeded(1)))
    x_t, t = shipped.s * shipped.z[:2], torch.tensor([300, 300])
    rose, castle = (clip.text(captions.read(2 * [text], by)) for text in ("a rose", "a castle in noto style"))
    said = net(x_t, t, rose)
    assert said.shape == x_t.shape
    for other in (net(x_t + 0.1, t, rose), net(x_t, t + 200, rose), net(x_t, t, castle)):
        assert (other - said).abs().max() > 1e-4
    with pytest.raises(ValueError, match="needs a condition"):
        net(x_t, t)


@pytest.mark.claim("C24")
@torch.no_grad()
def test_c24_the_decoder_takes_a_latent_and_nothing_else(shipped: Shipped):
    """One argument; a latent alone, and among others, gives the same picture; a picture is refused."""
    assert list(inspect.signature(shipped.vae.decode).parameters) == ["z"]
    alone = torch.cat([shipped.vae(one[None]) for one in shipped.z[:3]])
    assert (alone - shipped.vae(shipped.z[:6])[:3]).abs().max() < 1e-4
    with pytest.raises(ValueError, match=r"z must be \(b, 4, 16, 16\)"):
        shipped.vae.decode(shipped.x[:1])


# The scale ------------------------------------------------------------------------------------------------------------


@pytest.mark.claim("C24")
def test_c24_one_number_of_training_pictures_brings_val_to_variance_1(shipped: Shipped):
    value, error = variance(shipped.s * shipped.z)
    assert abs(value - 1) < 4 * math.hypot(error, shipped.error)
    assert math.hypot(error, shipped.error) < 0.05  # else the interval says nothing
    wrong, _ = variance(shipped.z / shipped.s)
    assert wrong == pytest.approx(value / shipped.s**4, rel=1e-4)


@pytest.mark.claim("C24")
def test_c24_the_text_to_image_recipe_scales_by_it(shipped: Shipped):
    """Within 4 standard errors; the deviation's is half the variance's."""
    assert abs(Text2Image().scale / shipped.s - 1) < 2 * shipped.error


@pytest.mark.claim("C24")
@pytest.mark.parametrize("process", [Process.linear(), Process.cosine()], ids=["linear", "cosine"])
def test_c24_a_scale_r_times_the_right_one_multiplies_the_snr_by_r_squared_at_every_t(process: Process):
    """From the process itself, with numbers of variance 1, exactly; and x_t then has variance a^2 r^2 + b^2."""
    x_0 = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    for t in (1, 250, 500, 999):
        right = process.marginal(x_0, t)
        for r in (0.25, 8.0):
            wrong = process.marginal(r * x_0, t)
            snr, expected = (q.mean.square().mean() / q.var.mean() for q in (wrong, right))
            assert (snr / expected).item() == pytest.approx(r * r, rel=1e-9)
            total = (wrong.mean.square().mean() + wrong.var.mean()).item()
            assert total == pytest.approx(1 + process.alpha_bar[t].item() * (r * r - 1), rel=1e-9)
            assert abs(total - 1) > 1e-8


@pytest.mark.claim("C24")
@pytest.mark.parametrize("t", [1, 300, 700, 1000])
def test_c24_at_the_right_scale_x_t_has_variance_1_at_every_t(shipped: Shipped, t: int):
    process = Process.cosine()
    x_t = process.marginal(shipped.s * shipped.z, t).sample(seeded(t))
    value, error = variance(x_t)
    assert abs(value - 1) < 4 * math.hypot(error, process.alpha_bar[t].item() * shipped.error)


@pytest.mark.claim("C24")
@torch.no_grad()
def test_c24_there_and_back_through_codec_noise_and_decoder(shipped: Shipped):
    """Encoded, noised, freed of the true noise and decoded: what the autoencoder gives back of the picture itself; with
    the scale used the wrong way round, another picture."""
    codec, process = Latents(shipped.vae, shipped.s), Process.cosine()
    x_0 = codec.encode(shipped.images[:8])
    assert torch.allclose(x_0, shipped.s * shipped.z[:8], atol=1e-4)
    a, b = process.a[600].item(), process.b[600].item()
    x_t, back = noised_latent(shipped.z[:8], shipped.s, a, b, torch.randn(x_0.shape, generator=seeded()))
    assert x_t.var().item() == pytest.approx(1, abs=0.3)
    plain = Pixels().decode(shipped.y[:8]).int()
    assert (codec.decode(shipped.s * back).int() - plain).abs().max() <= 1  # a grey level: rounding
    wrong = Latents(shipped.vae, 0.25 * shipped.s).decode(x_0).int()
    assert (wrong - plain).double().abs().mean() > 10


# The loss -------------------------------------------------------------------------------------------------------------


@pytest.mark.claim("C24")
@torch.no_grad()
def test_c24_squared_error_and_small_kl_are_the_elbo_at_a_small_sigma(shipped: Shipped):
    """N / (2 sigma^2) times the two terms, sigma^2 = w N / (2 M), and -ELBO differ by the constant of the normal
    density, N log(sigma sqrt(2 pi)), at any picture."""
    recipe, _ = pretrained.read(pretrained.shipped("autoencoder"))
    clip, x = pretrained.load("clip"), shipped.x[:6]
    N, M = x[0].numel(), shipped.z[0].numel()
    sigma = math.sqrt(recipe.kl * N / (2 * M))
    loss = autoencoder_losses(shipped.vae, x, clip.image.features, seeded(3))
    q = shipped.vae.encode(x)
    y = shipped.vae.decode(q.sample(seeded(3)))
    nats = q.kl(Gaussian(torch.zeros_like(q.mean), torch.ones_like(q.var))).flatten(1).sum(1)
    minus_elbo = (nats - Normal(sigma).log_prob(x, y)).mean().item()
    scaled = N / (2 * sigma**2) * (loss.pixels + recipe.kl * loss.kl).item()
    assert minus_elbo == pytest.approx(scaled + N * math.log(sigma * math.sqrt(2 * math.pi)), rel=1e-4)


# What the decoder gives back ------------------------------------------------------------------------------------------


@pytest.mark.claim("C24")
@pytest.mark.parametrize("style", captions.STYLES)
def test_c24_every_style_comes_back_better_than_from_as_many_pixels(shipped: Shipped, style: str):
    """1,024 learned numbers against a picture of 18 x 18 pixels (972 numbers) enlarged: the interval of the
    difference of squared errors lies below 0. And no style is below a floor."""
    which = torch.tensor([one == style for one in shipped.styles])
    x, y = shipped.x[which], shipped.y[which]
    small = F.interpolate(F.interpolate(x, (18, 18), mode="area"), (64, 64), mode="bicubic").clamp(-1, 1)
    ours, theirs = ((x - one).square().flatten(1).mean(1) for one in (y, small))
    assert bootstrap(ours - theirs, generator=seeded()).high < 0
    assert psnr(x, y) > 24


@pytest.mark.claim("C24")
def test_c24_the_judge_finds_reconstructions_nearer_to_the_pictures_than_as_many_pixels(shipped: Shipped):
    judge, codec = pretrained.load("judge"), Pixels()
    small = F.interpolate(F.interpolate(shipped.x, (18, 18), mode="area"), (64, 64), mode="bicubic")
    real, ours, theirs = (embed_images(judge, one) for one in (shipped.images, *map(codec.decode, (shipped.y, small))))
    root = real.shape[1] ** 0.5
    assert paired_kid(root * real, root * ours) < 0.5 * paired_kid(root * real, root * theirs)


@pytest.mark.claim("C24")
@torch.no_grad()
def test_c24_a_smaller_latent_is_a_smaller_picture(shipped: Shipped):
    """What half the latent decodes to is nearer to half the picture than to a picture of a neighbour or to half a
    latent that is turned over; and less of the latents is finest detail than halving takes from noise (3/4)."""
    z, x = F.avg_pool2d(shipped.z, 2), F.avg_pool2d(shipped.x, 2)
    y = torch.cat([shipped.vae.decoder(part) for part in z.split(100)])
    turned = torch.cat([shipped.vae.decoder(part) for part in z.flip(1).split(100)])
    assert psnr(x, y) > max(22, psnr(x, y.roll(1, 0)) + 6, psnr(x, turned) + 6)
    centred = shipped.z - shipped.z.mean((0, 2, 3), keepdim=True)
    left = F.interpolate(F.avg_pool2d(centred, 2), scale_factor=2)
    assert (centred - left).square().sum() < 0.38 * centred.square().sum()


@pytest.mark.claim("C24")
@torch.no_grad()
def test_c24_decode_the_mean_of_q_rather_than_a_draw(shipped: Shipped):
    """A draw costs something, picture by picture; much less than noise of 0.4 deviations of the latents."""
    noise = torch.randn(shipped.z.shape, generator=seeded(4))
    drawn = shipped.z + shipped.var.sqrt() * noise
    far = shipped.z + 0.4 * shipped.z.std() * noise
    error, of_draw, of_far = (
        (shipped.x - torch.cat([shipped.vae(part) for part in one.split(60)])).square().flatten(1).mean(1)
        for one in (shipped.z, drawn, far)
    )
    assert bootstrap(of_draw - error, generator=seeded()).low > 0
    assert (of_draw - error).mean() < 0.5 * (of_far - error).mean()


@pytest.mark.claim("C24")
@torch.no_grad()
def test_c24_decoding_is_local(shipped: Shipped):
    """One number changed by a deviation: four fifths of the squared change lie within a square of 5 x 5 places, which
    is a tenth of the picture. Not all of it: the group normalisations look at the whole map."""
    n, g = 60, seeded(5)
    place, channel = torch.randint(4, 12, (n, 2), generator=g), torch.randint(4, (n,), generator=g)
    z = shipped.z[:n].clone()
    z[torch.arange(n), channel, place[:, 0], place[:, 1]] += shipped.z.std()
    change = (shipped.vae(z) - shipped.y[:n]).square().sum(1)
    away = (torch.arange(64) - (4 * place + 1.5)[:, :, None]).abs()  # of rows, of columns
    inside = torch.maximum(away[:, 0, :, None], away[:, 1, None, :]) < 10
    share = (change * inside).sum((1, 2)) / change.sum((1, 2))
    assert inside.double().mean() < 0.1
    assert share.mean() > 0.8
    assert (change * ~inside).sum() > 0


@pytest.mark.claim("C24")
@torch.no_grad()
def test_c24_the_latents_are_not_drawn_from_the_prior(shipped: Shipped):
    """Neighbouring numbers correlate in every channel, which independent draws do not; and what the decoder makes of
    such draws is far, to the judge, from the pictures, where reconstructions are near."""
    z = (shipped.z - shipped.z.mean((0, 2, 3), keepdim=True)) / shipped.z.std((0, 2, 3), keepdim=True)
    of_pictures = (z[..., :-1] * z[..., 1:]).mean((2, 3))  # (n, 4)
    for channel in of_pictures.T:
        assert bootstrap(channel, generator=seeded()).low > 0.1
    judge, codec = pretrained.load("judge"), Pixels()
    drawn = torch.cat([shipped.vae(torch.randn(60, 4, 16, 16, generator=seeded(k)) / shipped.s) for k in range(3)])
    real, ours, theirs = (embed_images(judge, one) for one in (shipped.images, *map(codec.decode, (shipped.y, drawn))))
    root = real.shape[1] ** 0.5
    assert paired_kid(root * real, root * ours) < 0.1 * paired_kid(root * real, root * theirs)
