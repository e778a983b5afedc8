"""Notebook 02, GANs. Equations are those of Goodfellow et al. 2014; C04, C05 and C06 are claims of the course.

Symbols: f, the discriminator's logit, D = sigmoid(f) the probability that a sample is real; V = E_data[log D] +
E_G[log(1 - D)]; densities p_data and p_g on a grid of spacing dx. All logarithms are natural.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ddpm_edu.exercises.declare import exercise
from ddpm_edu.exercises.inputs import normal
from ddpm_edu.exercises.values import agree

# 02.1 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "02.1",
    title="The best discriminator",
    hints=(
        "Of all samples that fall near x, half real and half generated in all, which share is real?",
        "p_data / (p_data + p_g), element by element. Where the sum is 0, torch.where can put 1/2.",
        "torch.where computes both of its answers; 0 / 0 in the one that is not picked does no harm.",
    ),
)
def best_discriminator(p_data: Tensor, p_g: Tensor) -> Tensor:
    """Compute D*(x), the discriminator that maximises V for a fixed generator (C04).

    p_data, p_g: densities at the same points x, tensors of one shape, 0 or above; they may be very small in the tails.
    Returns D*, of that shape, in 0..1. Where both densities are 0 nothing is ever seen; answer 1/2 there.
    """
    total = p_data + p_g
    return torch.where(total > 0, p_data / total, 0.5)


def positive(rng: torch.Generator, *shape: int) -> Tensor:
    """Densities, from common to very rare: e^-30 to e."""
    return torch.exp(1 - 31 * torch.rand(*shape, generator=rng))


@best_discriminator.check
def test_best_discriminator_is_the_share_of_real(student, rng):
    """gives the share of real ones among all that fall near x, in the tails too"""
    for shape in ((7,), (3, 5)):
        p_data, p_g = positive(rng, *shape), positive(rng, *shape)
        # two points so far out that every padding shows, and each padding otherwise
        for p in (p_data, p_g):
            p.view(-1)[:2] = torch.tensor([1e-20, 1e-10]) * (1 + 4 * torch.rand(2, generator=rng))
        agree(student.best_discriminator(p_data, p_g), p_data / (p_data + p_g))


@best_discriminator.check
def test_best_discriminator_is_undecided_where_equal(student, rng):
    """is 1/2 wherever the densities are equal, and 1/2 where both are 0; 1 and 0 where only one is"""
    p = torch.cat([positive(rng, 4), torch.zeros(2)])
    agree(student.best_discriminator(p, p), torch.full((6,), 0.5))
    agree(student.best_discriminator(torch.tensor([0.3, 0.0]), torch.tensor([0.0, 0.2])), torch.tensor([1.0, 0.0]))


@best_discriminator.check
def test_best_discriminator_beats_its_neighbours(student, rng):
    """makes p_data log D + p_g log(1 - D) larger than a slightly larger or smaller D does"""
    p_data, p_g = 0.1 + torch.rand(2, 9, generator=rng, dtype=torch.float64)
    best = student.best_discriminator(p_data, p_g).double()
    assert ((best > 0.01) & (best < 0.99)).all()

    def value(D: Tensor) -> Tensor:
        return p_data * D.log() + p_g * (1 - D).log()

    assert (value(best) > value(best + 0.005)).all()
    assert (value(best) > value(best - 0.005)).all()


@best_discriminator.mistake(
    "The two have changed places: D is the probability that x is *real*, so p_data stands above the line."
)
def generated_above(p_data, p_g):
    return best_discriminator(p_g, p_data)


@best_discriminator.mistake(
    "You gave p_data / p_g, the odds. As a probability it is p_data / (p_data + p_g), between 0 and 1."
)
def odds(p_data, p_g):
    return p_data / p_g


@best_discriminator.mistake(
    "You divided by the mean of the densities. That is twice D*; where they are equal D* is 1/2, not 1."
)
def against_the_mean(p_data, p_g):
    return 2 * best_discriminator(p_data, p_g)


@best_discriminator.mistake(
    "You answered real or generated, 1 or 0. D* is a probability: log(1 - D) would be -infinity at each error."
)
def decided(p_data, p_g):
    return (p_data > p_g).float()


@best_discriminator.mistake(
    "You added a small number below the line. In the tails both densities are smaller than it, and D* comes out as 0."
)
def padded(p_data, p_g):
    return p_data / (p_data + p_g + 1e-8)


@best_discriminator.mistake(
    "You added a very small number below the line. Far out the densities are smaller still; and 0 / 0 comes out as 0."
)
def padded_a_little(p_data, p_g):
    return p_data / (p_data + p_g + 1e-12)


@best_discriminator.mistake(
    "You added a small number to both densities. In the tails it drowns them, and D* comes out as 1/2."
)
def padded_both(p_data, p_g):
    return (p_data + 1e-8) / (p_data + p_g + 2e-8)


@best_discriminator.mistake(
    "You kept the sum above a small number. In the tails it is below that, and D* comes out far too small."
)
def clamped(p_data, p_g):
    return p_data / (p_data + p_g).clamp(min=1e-8)


@best_discriminator.mistake(
    "Where both densities are 0 you answered 0: that is the verdict 'generated'. Asked for there is 1/2."
)
def zero_where_nothing(p_data, p_g):
    return (p_data / (p_data + p_g)).nan_to_num(0.0)


@best_discriminator.mistake(
    "0 / 0 gives NaN where both densities are 0. Ask for that case first (torch.where) and answer 1/2."
)
def nan_where_nothing(p_data, p_g):
    return p_data / (p_data + p_g)


@best_discriminator.mistake(
    "You gave the logit, log p_data - log p_g. D* is the sigmoid of that: p_data / (p_data + p_g)."
)
def logit(p_data, p_g):
    return p_data.log() - p_g.log()


@best_discriminator.mistake("You gave log D*. Asked for is D* itself: sigmoid in the place of logsigmoid.")
def logarithm(p_data, p_g):
    return F.logsigmoid(p_data.log() - p_g.log())


@best_discriminator.mistake(
    "You took the sigmoid of the densities' difference. D*'s logit is the difference of their *logarithms*."
)
def sigmoid_of_difference(p_data, p_g):
    return (p_data - p_g).sigmoid()


@best_discriminator.mistake(
    "You squared the densities. Maximising a log D + b log(1 - D) gives a / (a + b), no squares."
)
def squared(p_data, p_g):
    return best_discriminator(p_data**2, p_g**2)


@best_discriminator.mistake(
    "You divided by the sum over all points. At each x, compare p_data with p_g at that same x."
)
def over_all_points(p_data, p_g):
    return p_data / (p_data + p_g).sum()


# 02.2 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "02.2",
    title="The Jensen-Shannon divergence on a grid",
    hints=(
        "First the mixture M = (p + q) / 2, itself a density. Then two KL divergences, both *to* M, and their mean.",
        "KL(p || M) = integral of p log(p / M); on a grid the integral is a sum times dx.",
        "torch.xlogy(p, p / M) is p log(p / M), and 0 where p is 0.",
    ),
)
def jsd(p: Tensor, q: Tensor, dx: float) -> Tensor:
    """Compute the Jensen-Shannon divergence of two densities, by summing over a grid:

    JSD(p || q) = 1/2 KL(p || M) + 1/2 KL(q || M), with M = (p + q) / 2.

    p, q: densities at the same n points, (n,), 0 or above; 0 log 0 counts as 0.
    dx: the distance of neighbouring points.
    Returns one number, in nats: 0 for p = q, log 2 where the two never overlap.
    """
    M = torch.where(p + q > 0, (p + q) / 2, 1.0)
    return 0.5 * (torch.xlogy(p, p / M) + torch.xlogy(q, q / M)).sum() * dx


def bell(x: Tensor, mean: float, deviation: float) -> Tensor:
    return torch.exp(-0.5 * ((x - mean) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))


def grid_and_densities(rng: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Two different densities that overlap, with all of their mass on the grid."""
    x = torch.linspace(-9, 9, 361 + int(torch.randint(60, (), generator=rng)))
    shift, wide = (torch.rand(2, generator=rng) + 0.5).tolist()
    p = 0.3 * bell(x, -1.2, 0.8) + 0.7 * bell(x, shift, 1.0)
    return p, bell(x, shift - 1.5, 0.6 + wide), (x[1] - x[0]).item()


def boxes() -> tuple[Tensor, Tensor, float]:
    """Uniform on 0..1 and uniform on 1/2..3/2, on a grid that reaches beyond both."""
    x = torch.arange(-50, 250) / 100 + 0.005
    return ((x > 0) & (x < 1)).float(), ((x > 0.5) & (x < 1.5)).float(), 0.01


@jsd.check
def test_jsd_agrees_with_its_definition(student, rng):
    """agrees with 1/2 KL(p || M) + 1/2 KL(q || M) for densities that overlap"""
    for _ in range(3):
        p, q, dx = grid_and_densities(rng)
        agree(student.jsd(p, q, dx), jsd(p, q, dx))


@jsd.check
def test_jsd_minds_zeros(student, rng):
    """for two boxes that overlap by half, where densities are 0: half of log 2"""
    p, q, dx = boxes()
    agree(student.jsd(p, q, dx), torch.tensor(0.5 * math.log(2)))


@jsd.check
def test_jsd_is_bounded_and_symmetric(student, rng):
    """is 0 for equal densities, log 2 for densities apart, and the same with p and q exchanged"""
    p, q, dx = grid_and_densities(rng)
    assert abs(float(student.jsd(p, p, dx))) < 1e-5
    apart = torch.cat([torch.ones(10), torch.zeros(10)])
    agree(student.jsd(apart, apart.flip(0), 0.1), torch.tensor(math.log(2)))
    agree(student.jsd(q, p, dx), jsd(p, q, dx))


@jsd.mistake("The factors 1/2 before the two KL divergences are missing: JSD is their mean, at most log 2.")
def sum_of_both(p, q, dx):
    return 2 * jsd(p, q, dx)


@jsd.mistake("Your M is p + q, which integrates to 2. The mixture M = (p + q) / 2 is a density.")
def m_not_halved(p, q, dx):
    return jsd(p, q, dx) - math.log(2) / 2 * (p + q).sum() * dx


@jsd.mistake("You took KL(M || p) and KL(M || q). Both run the other way: from p and from q to M.")
def from_m(p, q, dx):
    M = (p + q) / 2
    return 0.5 * (M * (M / p).log() + M * (M / q).log()).sum() * dx


@jsd.mistake("You took logarithms to base 2, so your result is in bits. In nats, log is the natural logarithm.")
def in_bits(p, q, dx):
    return jsd(p, q, dx) / math.log(2)


@jsd.mistake("dx is missing: an integral is a sum times the distance of the points, or it grows with their number.")
def without_dx(p, q, dx):
    return jsd(p, q, 1.0)


@jsd.mistake(
    "You took the mean over the grid. An integral is the sum times dx; a mean depends on how wide the grid is."
)
def mean_over_grid(p, q, dx):
    return jsd(p, q, 1 / len(p))


@jsd.mistake("You left out the second half, KL(q || M): JSD treats p and q alike.")
def first_half_only(p, q, dx):
    return 0.5 * torch.xlogy(p, p / torch.where(p + q > 0, (p + q) / 2, 1.0)).sum() * dx


@jsd.mistake("You took KL(p || M) alone. JSD is the mean of KL(p || M) and KL(q || M).")
def one_kl(p, q, dx):
    return 2 * first_half_only(p, q, dx)


@jsd.mistake("You took KL(p || q). JSD compares each of the two with their mixture M, so that it stays finite.")
def straight_kl(p, q, dx):
    return torch.xlogy(p, p / q).sum() * dx


@jsd.mistake(
    "You compared p with q directly. Both are compared with their mixture M, which is not 0 where they are not."
)
def of_each_other(p, q, dx):
    return 0.5 * (torch.xlogy(p, p / q) + torch.xlogy(q, q / p)).sum() * dx


@jsd.mistake("0 * log 0 is NaN in floating point. Where p is 0 it adds nothing to the integral: torch.xlogy(p, p / M).")
def nan_from_zeros(p, q, dx):
    M = (p + q) / 2
    return 0.5 * (p * (p / M).log() + q * (q / M).log()).sum() * dx


@jsd.mistake("You took a root at the end: that is the Jensen-Shannon *distance*, the root of the divergence.")
def distance(p, q, dx):
    return jsd(p, q, dx).clamp(min=0).sqrt()


@jsd.mistake("You gave 2 JSD - 2 log 2, what V reaches at best. Asked for is JSD itself.")
def best_value(p, q, dx):
    return 2 * jsd(p, q, dx) - 2 * math.log(2)


@jsd.mistake("That is the total variation, half the integral of |p - q|: no logarithm in it.")
def total_variation(p, q, dx):
    return 0.5 * (p - q).abs().sum() * dx


# 02.3 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "02.3",
    title="The discriminator's loss, from logits",
    hints=(
        "V is a mean over the real batch plus a mean over the generated batch. The loss is -V.",
        "1 - sigmoid(f) = sigmoid(-f): the second logarithm is that of the same function, at -f.",
        "F.logsigmoid(f) is log(sigmoid(f)) without rounding the sigmoid first.",
    ),
)
def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Compute what the discriminator minimises, -V = -(E_data[log D] + E_G[log(1 - D)]), from its logits (eq. 1).

    real: (b,), logits f on data; D = sigmoid(f). fake: (b',), logits on generated samples; b' may differ from b.
    Returns one number. It must be finite and exact for any logit, also for 200, where sigmoid(f) rounds to 1.
    """
    return -F.logsigmoid(real).mean() - F.logsigmoid(-fake).mean()


@discriminator_loss.check
def test_loss_agrees_with_v(student, rng):
    """agrees with -V on random logits, batches of different sizes among them"""
    for b, c in ((4, 9), (6, 6), (1, 3)):  # unequal first: a check stops at its first error
        real, fake = 2 * normal(rng, b) + 0.7, 2 * normal(rng, c) + 0.2
        expected = -real.double().sigmoid().log().mean() - (1 - fake.double().sigmoid()).log().mean()
        agree(student.discriminator_loss(real, fake), expected.float())


@discriminator_loss.check
def test_loss_of_the_undecided(student, rng):
    """is 2 log 2 when every D is 1/2, and 0 when D is right and sure"""
    agree(student.discriminator_loss(torch.zeros(5), torch.zeros(3)), torch.tensor(2 * math.log(2)))
    assert abs(float(student.discriminator_loss(torch.full((3,), 90.0), torch.full((4,), -90.0)))) < 1e-6


@discriminator_loss.check
def test_loss_is_exact_for_large_logits(student, rng):
    """is exact where D is sure and wrong: one logit of 200 costs 200"""
    real, fake = normal(rng, 4), normal(rng, 4)
    real[1], fake[2] = -200.0, 150.0
    agree(student.discriminator_loss(real, fake), discriminator_loss(real, fake))


@discriminator_loss.mistake("You returned V. D climbs V, and optimizers go down: the loss is -V.")
def value_itself(real, fake):
    return -discriminator_loss(real, fake)


@discriminator_loss.mistake(
    "You added the logarithms sample by sample. First average each batch; then there is one number to add."
)
def not_averaged(real, fake):
    return -F.logsigmoid(real) - F.logsigmoid(-fake)


@discriminator_loss.mistake("Real and generated have changed places: D is to be large on data.")
def swapped(real, fake):
    return discriminator_loss(fake, real)


@discriminator_loss.mistake("You summed over the batch. E is a mean: with a sum the step grows with the batch.")
def summed(real, fake):
    return -F.logsigmoid(real).sum() - F.logsigmoid(-fake).sum()


@discriminator_loss.mistake(
    "You averaged over both batches together. V is one mean plus another, whatever the sizes of the batches."
)
def one_mean(real, fake):
    return -torch.cat([F.logsigmoid(real), F.logsigmoid(-fake)]).mean()


@discriminator_loss.mistake("You halved the sum of the two means. V has no factor 1/2, so D = 1/2 costs 2 log 2.")
def halved(real, fake):
    return 0.5 * discriminator_loss(real, fake)


@discriminator_loss.mistake(
    "The second term has the wrong sign: -V = -(E_data[log D] + E_G[log(1 - D)]), the minus before both."
)
def one_sign_wrong(real, fake):
    return -F.logsigmoid(real).mean() + F.logsigmoid(-fake).mean()


@discriminator_loss.mistake(
    "You took log sigmoid(1 - f). The 1 - belongs outside: 1 - D = 1 - sigmoid(f), which is sigmoid(-f)."
)
def one_minus_the_logit(real, fake):
    return -F.logsigmoid(real).mean() - F.logsigmoid(1 - fake).mean()


@discriminator_loss.mistake("You took 1 - log D. Asked for is log(1 - D): the logarithm of sigmoid(-f).")
def one_minus_the_logarithm(real, fake):
    return -F.logsigmoid(real).mean() - (1 - F.logsigmoid(fake)).mean()


@discriminator_loss.mistake(
    "You took the logarithm of a rounded sigmoid, which is -infinity for sure logits. F.logsigmoid does it in one go."
)
def rounded_sigmoid(real, fake):
    return -real.sigmoid().log().mean() - (1 - fake.sigmoid()).log().mean()


@discriminator_loss.mistake(
    "You added a small number inside the logarithm. It hides -infinity, and D pays too little for being sure and wrong."
)
def padded_logarithm(real, fake):
    return -(real.sigmoid() + 1e-8).log().mean() - (1 - fake.sigmoid() + 1e-8).log().mean()


@discriminator_loss.mistake(
    "You clamped D before the logarithm. That hides -infinity: a logit of 200 on the wrong side must cost 200."
)
def clamped_sigmoid(real, fake):
    D_real, D_fake = real.sigmoid().clamp(1e-7, 1 - 1e-7), fake.sigmoid().clamp(1e-7, 1 - 1e-7)
    return -D_real.log().mean() - (1 - D_fake).log().mean()


@discriminator_loss.mistake(
    "F.binary_cross_entropy takes D and cuts its logarithm off at -100; ..._with_logits takes f and is exact."
)
def cross_entropy_of_d(real, fake):
    one = F.binary_cross_entropy(real.sigmoid(), torch.ones_like(real))
    return one + F.binary_cross_entropy(fake.sigmoid(), torch.zeros_like(fake))


@discriminator_loss.mistake("You applied the sigmoid twice: F.logsigmoid and F.softplus take the logit itself.")
def sigmoid_twice(real, fake):
    return discriminator_loss(real.sigmoid(), fake.sigmoid())


@discriminator_loss.mistake(
    "You took the logarithm of the logits. D = sigmoid(f) comes first: a logit may be negative."
)
def no_sigmoid(real, fake):
    return -real.log().mean() - (1 - fake).log().mean()


@discriminator_loss.mistake(
    "On generated samples you took log D. D is to be small there: log(1 - D), which is log sigmoid(-f)."
)
def log_d_on_both(real, fake):
    return discriminator_loss(real, -fake)


@discriminator_loss.mistake("The generated samples are missing: with data alone D would answer 'real' to everything.")
def data_only(real, fake):
    return -F.logsigmoid(real).mean()


@discriminator_loss.mistake("The data are missing: with generated samples alone D would answer 'generated' to all.")
def generated_only(real, fake):
    return -F.logsigmoid(-fake).mean()


@discriminator_loss.mistake(
    "You took the difference of the mean logits, the loss of another family (Wasserstein GANs). V has logarithms of D."
)
def wasserstein(real, fake):
    return fake.mean() - real.mean()


@discriminator_loss.mistake("You took the hinge loss, max(0, 1 - f) and max(0, 1 + f). V has logarithms of D.")
def hinge(real, fake):
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


@discriminator_loss.mistake("You took squared errors of D, another family (least-squares GANs). V has logarithms of D.")
def least_squares(real, fake):
    return (real.sigmoid() - 1).square().mean() + fake.sigmoid().square().mean()


# 02.4 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "02.4",
    title="What reaches the generator",
    hints=(
        "log sigmoid(f) has the derivative 1 - sigmoid(f). Check it at f = 0.",
        "1 - sigmoid(f) = sigmoid(-f); so the first loss is log sigmoid(-f). Mind the inner derivative.",
        "Both are negative: either loss falls when the logit rises. They differ in *where* they are near 0.",
    ),
)
def generator_slopes(fake: Tensor) -> Tensor:
    """Compute the derivative of both generator losses by the logit f of a generated sample; D = sigmoid(f).

    The generator learns through f alone: its gradient is this factor times df/dG. So the factor says how much of D's
    advice arrives (C06). Saturating: log(1 - D). Non-saturating: -log D.

    fake: (b,), logits on generated samples.
    Returns (2, b): row 0 d/df log(1 - sigmoid(f)), row 1 d/df (-log sigmoid(f)), for each sample.
    """
    return torch.stack([-fake.sigmoid(), -(-fake).sigmoid()])


@generator_slopes.check
def test_slopes_are_derivatives(student, rng):
    """agrees with autograd for both losses"""
    for b in (5, 8):
        fake = 1.5 * normal(rng, b) - 0.5
        f = fake.double().requires_grad_()
        rows = [torch.autograd.grad(loss.sum(), f)[0] for loss in (F.logsigmoid(-f), -F.logsigmoid(f))]
        agree(student.generator_slopes(fake), torch.stack(rows).float())


@generator_slopes.check
def test_slopes_differ_where_samples_are_poor(student, rng):
    """where D is sure that a sample is generated, row 0 is next to 0 and row 1 next to -1"""
    slopes = torch.as_tensor(student.generator_slopes(torch.tensor([-12.0, -20.0])))
    assert slopes.shape == (2, 2)
    assert (slopes[0].abs() < 1e-4).all()
    agree(slopes[1], torch.tensor([-1.0, -1.0]))


@generator_slopes.check
def test_slopes_meet_at_one_half(student, rng):
    """where D = 1/2 both are -1/2, and everywhere the two add up to -1"""
    agree(student.generator_slopes(torch.zeros(3)), torch.full((2, 3), -0.5))
    agree(torch.as_tensor(student.generator_slopes(normal(rng, 6))).sum(0), -torch.ones(6))


@generator_slopes.mistake("The rows have changed places: row 0 is that of log(1 - D), which is flat where D is near 0.")
def rows_swapped(fake):
    return generator_slopes(fake).flip(0)


@generator_slopes.mistake(
    "Both signs are wrong: a larger logit makes both losses smaller, so both slopes are negative."
)
def signs_wrong(fake):
    return -generator_slopes(fake)


@generator_slopes.mistake("Row 0 has the wrong sign: log(1 - D) falls when the logit rises.")
def first_sign_wrong(fake):
    return torch.stack([fake.sigmoid(), fake.sigmoid() - 1])


@generator_slopes.mistake("Row 1 has the wrong sign: -log D falls when the logit rises. A minus was lost.")
def second_sign_wrong(fake):
    return torch.stack([-fake.sigmoid(), 1 - fake.sigmoid()])


@generator_slopes.mistake(
    "You took the derivatives by D, -1 / (1 - D) and -1 / D. By the logit, each is times dD/df = D (1 - D)."
)
def by_d(fake):
    D = fake.sigmoid()
    return torch.stack([-1 / (1 - D), -1 / D])


@generator_slopes.mistake(
    "You gave dD/df = D (1 - D) alone. The loss is a logarithm of D: its own derivative comes first."
)
def of_the_sigmoid(fake):
    return -(fake.sigmoid() * (1 - fake.sigmoid())).expand(2, -1).clone()


@generator_slopes.mistake("You returned the losses themselves. Asked for are their derivatives by the logit.")
def losses_themselves(fake):
    return torch.stack([F.logsigmoid(-fake), -F.logsigmoid(fake)])


@generator_slopes.mistake("You divided by the batch size. Asked for is each sample's own slope, before any mean.")
def of_the_mean(fake):
    return generator_slopes(fake) / len(fake)


@generator_slopes.mistake("Both rows are -D. That is right for log(1 - D); for -log D it is -(1 - D).")
def both_minus_d(fake):
    return -fake.sigmoid().expand(2, -1).clone()


@generator_slopes.mistake("Both rows are -(1 - D). That is right for -log D; for log(1 - D) it is -D.")
def both_minus_one_minus_d(fake):
    return (fake.sigmoid() - 1).expand(2, -1).clone()


@generator_slopes.mistake("You took f for D. f is the logit, any number; D = sigmoid(f) comes first.")
def logit_as_d(fake):
    return torch.stack([-fake, fake - 1])


@generator_slopes.mistake(
    "You took f for D and derived by it: -1 / (1 - f), -1 / f. f is the logit; D = sigmoid(f) comes first."
)
def derived_by_logit_as_d(fake):
    return torch.stack([-1 / (1 - fake), -1 / fake])


@generator_slopes.mistake(
    "Row 1 is -1 everywhere in yours. That is its limit where D is near 0; in general it is -(1 - D)."
)
def limit_only(fake):
    return torch.stack([-fake.sigmoid(), -torch.ones_like(fake)])


@generator_slopes.mistake(
    "You took log(1 - D) and log D. What the generator minimises in the second case is *minus* log D, at the same f."
)
def slope_at_minus_f(fake):
    return torch.stack([-(-fake).sigmoid(), (-fake).sigmoid()])


# 02.5 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "02.5",
    title="Which modes do the samples reach?",
    hints=(
        "torch.cdist(x, means) gives all n x k distances at once.",
        "distance.min(1) has the distance to the nearest mode in .values and which one it is in .indices.",
        "torch.bincount(which[near], minlength=k) counts them; divide by n, all samples, not only those on a mode.",
    ),
)
def mode_shares(x: Tensor, means: Tensor, sigma: float) -> Tensor:
    """Compute, for each mode of a mixture of Gaussians of deviation sigma, the share of the samples that lies on it.

    A sample lies on the mode nearest to it, if its distance is at most 3 sigma; else on none, however many there are.

    x: (n, d), samples. means: (k, d), the centres of the modes.
    Returns (k,): shares of all n samples. Their sum says how many are on a mode at all.
    """
    distance, which = torch.cdist(x, means).min(1)
    return torch.bincount(which[distance <= 3 * sigma], minlength=len(means)) / len(x)


def samples(rng: torch.Generator, k: int = 5, n: int = 300) -> tuple[Tensor, Tensor, float]:
    """Around k centres on a ring (neighbours within 5 sigma), the last one hardly visited, and between them, anyhow."""
    sigma = 0.2 + 0.1 * torch.rand((), generator=rng).item()
    angle = 2 * math.pi * (torch.arange(k) / k + torch.rand((), generator=rng))
    means = 2.5 * k / math.pi * sigma * torch.stack([angle.cos(), angle.sin()], 1)
    which = torch.randint(k - 1, (n,), generator=rng)
    near = means[which] + sigma * normal(rng, n, 2)
    return torch.cat([near, means[-1:] + 0.1, 4 * normal(rng, n // 3, 2)]), means, sigma


@mode_shares.check
def test_shares_agree_with_a_count(student, rng):
    """agrees with a count on random samples, some on modes, some between them and beyond"""
    for k in (4, 7):
        x, means, sigma = samples(rng, k)
        agree(student.mode_shares(x, means, sigma), mode_shares(x, means, sigma))


@mode_shares.check
def test_shares_of_what_is_placed(student, rng):
    """of samples placed by hand, takes those 2.9 sigma from a mode, in any direction, and none 3.1 sigma away"""
    means, s = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]), 0.5
    diagonal = 2.9 * s / math.sqrt(2)
    x = torch.tensor(
        [[2.9 * s, 0], [diagonal, diagonal], [10, 3.1 * s], [8.9, 1.1], [5, 5], [10.0, 0.1], [-0.3, 0], [0, -1]]
    )
    agree(student.mode_shares(x, means, s), torch.tensor([4 / 8, 1 / 8, 0]))


@mode_shares.check
def test_shares_count_each_sample_once(student, rng):
    """counts a sample that is within 3 sigma of two modes once, on the nearer one"""
    x = torch.tensor([[0.4, 0.0], [0.6, 0.0], [0.7, 0.1], [-0.2, 0.0]])
    agree(student.mode_shares(x, torch.tensor([[0.0, 0.0], [1.0, 0.0]]), 0.3), torch.tensor([0.5, 0.5]))


@mode_shares.mistake(
    "You asked for a distance of at most sigma. In the plane only 39 % of a Gaussian's samples are so near."
)
def within_one_sigma(x, means, sigma):
    return mode_shares(x, means, sigma / 3)


@mode_shares.mistake("You asked for a distance of at most 2 sigma; here a sample counts up to 3 sigma.")
def within_two_sigma(x, means, sigma):
    return mode_shares(x, means, 2 * sigma / 3)


@mode_shares.mistake("You compared a distance with 9 sigma^2. Square the distance too, or neither.")
def squared_limit(x, means, sigma):
    return mode_shares(x, means, 3 * sigma**2)


@mode_shares.mistake("You compared a squared distance with 3 sigma: take the root, or square both.")
def squared_distance(x, means, sigma):
    return mode_shares(x, means, math.sqrt(3 * sigma) / 3)


@mode_shares.mistake("You gave every sample to its nearest mode, however far it is. Beyond 3 sigma it lies on none.")
def nearest_only(x, means, sigma):
    return mode_shares(x, means, math.inf)


@mode_shares.mistake("You counted a sample on every mode within 3 sigma. It lies on the nearest one only.")
def on_every_mode(x, means, sigma):
    return (torch.cdist(x, means) <= 3 * sigma).float().mean(0)


@mode_shares.mistake(
    "You divided by the samples that lie on a mode. Divide by all n, or samples between modes go unnoticed."
)
def of_those_on_modes(x, means, sigma):
    shares = mode_shares(x, means, sigma)
    return shares / shares.sum()


@mode_shares.mistake("You gave counts. Shares are counts divided by n, the number of samples.")
def counts(x, means, sigma):
    return mode_shares(x, means, sigma) * len(x)


@mode_shares.mistake("You divided by the number of modes. A share is a count divided by the number of samples.")
def by_number_of_modes(x, means, sigma):
    return mode_shares(x, means, sigma) * len(x) / len(means)


@mode_shares.mistake(
    "You asked each coordinate to be within 3 sigma, which is a box. The distance is Euclidean: a disc."
)
def in_a_box(x, means, sigma):
    distance, which = torch.cdist(x, means, p=math.inf).min(1)
    return torch.bincount(which[distance <= 3 * sigma], minlength=len(means)) / len(x)


@mode_shares.mistake(
    "You added up the coordinates' distances. The distance is Euclidean: the root of the sum of squares."
)
def city_blocks(x, means, sigma):
    distance, which = torch.cdist(x, means, p=1).min(1)
    return torch.bincount(which[distance <= 3 * sigma], minlength=len(means)) / len(x)


@mode_shares.mistake("You answered which modes are reached, 1 or 0. Asked for is the share of samples on each.")
def reached_or_not(x, means, sigma):
    return (mode_shares(x, means, sigma) > 0).float()


# 02.6 ---------------------------------------------------------------------------------------------------------------


@exercise(
    "02.6",
    title="Let the discriminator see several at once",
    hints=(
        "The first m samples go into row 0, the next m into row 1: neighbours stay together.",
        'einops can name it: "(n m) c ... -> n (m c) ...", with m=m.',
    ),
)
def pack(x: Tensor, m: int) -> Tensor:
    """Pack samples in groups of m, as PacGAN's discriminator sees them (Lin et al. 2018): the groups' members stand
    side by side on axis 1, so that a network for c features or channels becomes one for m c.

    x: (n, c, ...), points (n, d) or pictures (n, c, h, w), n a multiple of m.
    Returns (n / m, m c, ...): row 0 has samples 0 to m - 1, one after the other, row 1 the next m, and so on.
    """
    return rearrange(x, "(n m) c ... -> n (m c) ...", m=m)


@pack.check
def test_pack_puts_neighbours_side_by_side(student, rng):
    """puts samples 0 to m - 1 side by side in row 0, the next m in row 1, for points and for pictures"""
    for shape, m in (((12, 2), 3), ((8, 3), 4), ((6, 2, 3, 3), 2), ((4, 1, 5, 5), 4)):
        x = normal(rng, *shape)
        agree(student.pack(x, m), torch.cat([x[i::m] for i in range(m)], 1))


@pack.check
def test_pack_of_one_changes_nothing(student, rng):
    """leaves x as it is for m = 1, and loses nothing for m = 2"""
    x = normal(rng, 6, 2)
    agree(student.pack(x, 1), x)
    agree(torch.as_tensor(student.pack(x, 2)).reshape(6, 2), x)


@pack.mistake("You put samples n / m apart together: row 0 must hold the first m. Keep m the faster index, (n m).")
def strided(x, m):
    return rearrange(x, "(m n) c ... -> n (m c) ...", m=m)


@pack.mistake("You made m groups. Asked for are groups *of* m samples: n / m rows.")
def m_groups(x, m):
    return x.reshape(m, -1, *x.shape[2:])


@pack.mistake("You interleaved the members' features. Each sample's features stay together: (m c), not (c m).")
def interleaved(x, m):
    return rearrange(x, "(n m) c ... -> n (c m) ...", m=m)


@pack.mistake(
    "You gave the groups an axis of their own. The network has none for it: join it with the features, (m c)."
)
def own_axis(x, m):
    return rearrange(x, "(n m) c ... -> n m c ...", m=m)


@pack.mistake("You averaged the group. The discriminator must see all members, or it cannot tell whether they differ.")
def averaged(x, m):
    return rearrange(x, "(n m) c ... -> n m c ...", m=m).mean(1)


@pack.mistake("You repeated each sample m times. The point is to show m *different* samples together.")
def repeated(x, m):
    return x.repeat_interleave(m, 0).reshape(len(x), -1, *x.shape[2:])


@pack.mistake("You flattened pictures. Members go side by side as channels, (n / m, m c, h, w): height and width stay.")
def flattened(x, m):
    return x.reshape(len(x) // m, -1)


@pack.mistake(
    "Right for points, not for pictures: theirs have height and width behind the channels, which stay as they are."
)
def points_only(x, m):
    return x.reshape(-1, m * x.shape[1])


@pack.mistake("You kept the first of each group. The discriminator must see all m members.")
def first_of_each(x, m):
    return x[::m]
