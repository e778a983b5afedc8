"""CLIP's parts: tokenizer, captions, encoders and loss, against the library that has them too."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from stats import seeded
from torch import Tensor

from ddpm_edu import captions
from ddpm_edu.captions import ATTRIBUTES, VALUES, describes, facts, misread, neutral, read, say, swapped
from ddpm_edu.data import ROOT, Captioned, Emoji, emoji, lookalikes
from ddpm_edu.metrics import retrieval
from ddpm_edu.nets.clip import CLIP, ImageEncoder, TextEncoder, until_end
from ddpm_edu.objectives import contrastive_loss
from ddpm_edu.recipes.clip import Clip, Judge, embed_images, embed_texts, moved, reads
from ddpm_edu.tokenizer import END, FIRST, PIECE, START, Tokenizer
from ddpm_edu.training import Learner

# Tokenizer ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learned() -> Tokenizer:
    return captions.tokenizer()


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a  b\t\nc ",
        "woman farmer, medium-light skin tone",
        "ÄÖ ß½ ²",
        "小心 红心",
        "👩🏽‍🌾❤️🏳️‍🌈",
        "x_y__z 12,345",
        "\x00\x7f\u200b\ufeff",
        "half a pair \ud83d",  # of UTF-16, as broken input has
    ],
)
def test_any_text_comes_back(learned: Tokenizer, text: str):
    assert learned.decode(learned.encode(text)) == text
    assert "".join(PIECE.findall(text)) == text


def test_random_text_comes_back(learned: Tokenizer):
    rng = random.Random(0)
    ranges = [(0, 0x80), (0x80, 0x800), (0x4E00, 0x9FFF), (0x1F300, 0x1FAFF), (0x2000, 0x206F)]
    for _ in range(500):
        text = "".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(20))
        assert learned.decode(learned.encode(text)) == text


def test_the_pairs_are_the_most_frequent_ones():
    """By hand: in "aab aab ab" the pieces are "aab", " aab", " ab"; ab stands three times, a a twice."""
    tokenizer = Tokenizer.learn(["aab aab ab"], 2)
    a, b, space = b"ab "
    assert tokenizer.merges[0] == (a, b)
    assert tokenizer.merges[1] == (a, FIRST)  # "a" + "ab", twice, as often as " a": the larger pair wins the tie
    assert tokenizer.encode("aab b") == [FIRST + 1, space, b]
    assert len(tokenizer) == FIRST + 2


def test_learning_counts_pairs_as_a_slow_count_does():
    """Each merge is the most frequent pair of a count from scratch."""
    texts = [row.caption for row in emoji("val").rows[:60]]
    tokenizer = Tokenizer.learn(texts, 40)
    for k in range(40):
        before = Tokenizer(tokenizer.merges[:k])
        pairs: dict[tuple[int, int], int] = {}
        for text in texts:
            for piece in PIECE.findall(text):
                tokens = before.encode(piece)
                for pair in pairwise(tokens):
                    pairs[pair] = pairs.get(pair, 0) + 1
        assert pairs[tokenizer.merges[k]] == max(pairs.values())


def test_more_merges_than_pairs():
    with pytest.raises(ValueError, match=r"only 1 pairs to merge"):
        Tokenizer.learn(["ab"], 2)


def test_common_words_are_one_token(learned: Tokenizer):
    assert learned.words(" woman skin heart") == [" woman", " skin", " heart"]


# Captions -------------------------------------------------------------------------------------------------------------


def test_read(learned: Tokenizer):
    tokens = read(["Red  heart", "", "red heart "], learned)
    assert tokens.shape == (3, 4)
    assert read([], learned).shape == (0, 2)
    assert (tokens[0] == tokens[2]).all()
    assert tokens[:, 0].tolist() == [START] * 3
    assert until_end(tokens).sum(1).tolist() == [4, 3, 4]
    assert (tokens[~until_end(tokens)] == END).all()
    with pytest.raises(ValueError, match="at most can be read; shorten it"):
        read(["heart " * 40], learned)


def test_every_caption_can_be_read(learned: Tokenizer):
    for split in ("train", "val"):
        read([row.caption for row in emoji(split)[1]], learned)


def test_what_is_said_is_true_and_complete():
    """Every attribute that is stated is in the text, and no other; both happen."""
    rows, generator, left = emoji("train").rows, seeded(), {name: 0 for name in ATTRIBUTES}
    for i in torch.randint(len(rows), (3000,), generator=generator).tolist():
        row = rows[i]
        said = say(row, torch.rand(5, generator=generator).tolist())
        states = dict(zip(ATTRIBUTES, said.states.tolist(), strict=True))
        assert states["thing"]
        assert states["style"] == (row.style in said.text)
        if row.tone:
            assert states["tone"] == states["tone2"] == (f"{row.tone} skin" in said.text)
        assert (row.base if states["gender"] else neutral(row)) in said.text or said.text == row.caption
        for name, stated in states.items():
            left[name] += not stated
    assert 200 < left["style"] < 400
    assert 75 < left["gender"] < 225
    assert 200 < left["tone"] < 400
    assert left["thing"] == 0


def test_sayings_are_ways_of_saying_each_picture():
    """The very draws of `say`, in the tokens of `read`; one seed, one bank; a batch takes any of the ways."""
    rows, by = emoji("train").rows[:50], captions.tokenizer()
    bank = captions.sayings(rows, 8, by, seed=3)
    assert bank.tokens.shape == (50, 8, captions.LENGTH)
    u = torch.rand(50, 8, 5, generator=seeded(3)).tolist()
    said = [say(row, draw) for row, draws in zip(rows, u, strict=True) for draw in draws]
    assert torch.equal(bank.tokens.flatten(0, 1).long(), read([one.text for one in said], by, captions.LENGTH))
    assert torch.equal(bank.states.flatten(0, 1), torch.stack([one.states for one in said]))
    assert all(map(torch.equal, bank, captions.sayings(rows, 8, by, seed=3)))
    assert not torch.equal(bank.tokens, captions.sayings(rows, 8, by, seed=4).tokens)

    which = torch.arange(50).repeat(100)
    tokens, states = bank.draw(which, seeded())
    same = (bank.tokens[which].long() == tokens[:, None]).all(2) & (bank.states[which] == states[:, None]).all(2)
    assert same.any(1).all()  # of its own picture
    numbered = captions.Sayings(torch.arange(400).view(50, 8, 1).short(), bank.states)  # each way another token
    assert set(numbered.draw(which, seeded())[0].flatten().tolist()) == set(range(400))
    with pytest.raises(ValueError, match="1 way or more"):
        captions.sayings(rows, 0, by)
    for nothing in (read([], by, 7), facts([])):
        assert nothing.dtype == torch.long  # so that it can be joined to other tokens and facts


def test_trimmed_takes_off_what_only_fills_up(learned: Tokenizer):
    texts = ["red heart", "", "a"]
    assert torch.equal(captions.trimmed(read(texts, learned, captions.LENGTH)), read(texts, learned))
    assert torch.equal(captions.trimmed(read(texts, learned)), read(texts, learned))


def test_swapped():
    rows = emoji("val").rows
    for attribute, n in (("style", 5), ("tone", 5), ("gender", 2)):
        seen = 0
        for row in rows:
            texts = swapped(row, attribute)
            if not texts:
                assert attribute != "style"
                continue
            seen += 1
            assert texts[getattr(row, attribute)] == row.caption
            assert len(set(texts.values())) == n
            for value, text in texts.items():  # nothing else has changed
                words = {"tone": f"{value} skin tone", "style": f"{value} style:"}.get(attribute, value)
                assert words in text or (value, row.gender) == ("man", "woman") or attribute == "gender"
        assert seen > 100
    farmer = next(row for row in rows if row.base == "woman farmer")
    assert swapped(farmer, "gender")["man"] == farmer.caption.replace("woman", "man")


def test_describes_by_hand():
    truth = torch.tensor([[0, 1, 2, 0, 0], [0, 1, 3, 0, 0], [0, 1, 2, 0, 1], [4, 1, 2, 0, 0]])
    states = torch.ones(4, 5, dtype=torch.bool)
    assert (describes(states, truth, truth) == torch.eye(4, dtype=torch.bool)).all()
    states[0, 2] = False  # caption 0 names no tone: true of picture 1 as well
    states[2, 4] = False  # caption 2 names no style: true of picture 0 as well
    expected = torch.eye(4, dtype=torch.bool)
    expected[0, 1] = expected[2, 0] = True
    assert (describes(states, truth, truth) == expected).all()


def test_facts_tell_any_two_pictures_apart():
    """But for mirrored and otherwise repeated drawings, which share their name, every picture has facts of its own."""
    rows = emoji("train").rows
    table = facts(rows)
    assert table.shape == (len(rows), len(ATTRIBUTES))
    assert len(torch.unique(table, dim=0)) == len(rows)


def test_lookalikes():
    group = torch.tensor([0, 1, 0, 1, 2, 0])
    batch = lookalikes(group, 8, 4)
    seen = torch.stack([batch(seeded(k)) for k in range(400)]).view(-1, 4)
    assert (group[seen] == group[seen[:, :1]]).all()
    assert torch.equal(batch(seeded(3)), batch(seeded(3)))
    share = seen[:, 0].bincount(minlength=6) / len(seen)
    torch.testing.assert_close(share, torch.full((6,), 1 / 6), rtol=0, atol=5 * (5 / 36 / len(seen)) ** 0.5)
    others = seen[group[seen[:, 0]] == 0][:, 1:].flatten().bincount(minlength=6)
    assert (others[[0, 2, 5]] > 0.28 * others.sum()).all()


# Encoders -------------------------------------------------------------------------------------------------------------


def tokens(*lengths: int, n: int = 12) -> Tensor:
    rows = [torch.randint(256, (k,), generator=seeded(k)).tolist() for k in lengths]
    return torch.tensor([[START, *row, *[END] * (n - 1 - len(row))] for row in rows])


def test_the_text_encoder_is_clips():
    """Against transformers' CLIPTextModel with the same weights."""
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    special = {"bos_token_id": START, "eos_token_id": END, "pad_token_id": END}
    theirs = CLIPTextModel(
        CLIPTextConfig(vocab_size=300, max_position_embeddings=12, hidden_act="gelu", **sizes, **special)
    ).eval()
    ours = TextEncoder(300, 32, layers=2, heads=4, length=12)
    state = theirs.state_dict()
    torch.manual_seed(0)
    for value in state.values():
        value.copy_(torch.randn_like(value) * 0.2)
    mapped = {
        "embed.weight": state["embeddings.token_embedding.weight"],
        "place": state["embeddings.position_embedding.weight"],
    }
    for end in ("weight", "bias"):
        mapped[f"norm.{end}"] = state[f"final_layer_norm.{end}"]
        for k in range(2):
            layer = {name: state[f"encoder.layers.{k}.{name}.{end}"] for name in (
                "layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2",
                "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj",
            )}  # fmt: skip
            qkv = torch.cat([layer[f"self_attn.{name}_proj"] for name in "qkv"])
            parts = {"norm_1": layer["layer_norm1"], "norm_2": layer["layer_norm2"], "qkv": qkv}
            parts |= {"out": layer["self_attn.out_proj"], "mlp.0": layer["mlp.fc1"], "mlp.2": layer["mlp.fc2"]}
            mapped |= {f"blocks.{k}.{name}.{end}": value for name, value in parts.items()}
    ours.load_state_dict(mapped)
    text = tokens(3, 10, 0)
    states, mask = ours(text)
    out = theirs(input_ids=text)
    torch.testing.assert_close(states, out.last_hidden_state, rtol=1e-4, atol=1e-5)
    last = mask.sum(1) - 1
    torch.testing.assert_close(states[torch.arange(3), last], out.pooler_output, rtol=1e-4, atol=1e-5)


def test_no_token_sees_a_later_one():
    net, one = TextEncoder(300, 16, layers=2, heads=4, length=12), tokens(8)
    other = one.clone()
    other[0, 5] = 7
    a, b = net(one).tokens, net(other).tokens
    torch.testing.assert_close(a[:, :5], b[:, :5])
    assert not torch.isclose(a[:, 5:], b[:, 5:]).all(-1).any()


def test_what_follows_the_end_does_not_count():
    torch.manual_seed(0)
    net = CLIP(TextEncoder(300, 16, layers=1, heads=4, length=12), ImageEncoder((16,), 1), 8)
    text = tokens(4)
    torch.testing.assert_close(net.embed_text(text), net.embed_text(text[:, :6]))


def test_texts_that_cannot_be_read():
    net = TextEncoder(300, 16, layers=1, heads=4, length=12)
    for bad in (tokens(3, n=13), tokens(3)[0], torch.zeros(1, 4, dtype=torch.long)):
        with pytest.raises(ValueError, match=r"let `captions\.read` make them"):
            net(bad)


def test_the_image_encoder():
    torch.manual_seed(0)
    net, x = ImageEncoder((16, 32), 1, patch=4), torch.randn(2, 3, 64, 64)
    assert [tuple(f.shape) for f in net.features(x)] == [(2, 16, 16, 16), (2, 32, 8, 8)]
    assert net(x).shape == (2, 32)


def test_embeddings_have_length_one_and_the_scale_a_limit():
    torch.manual_seed(0)
    net = CLIP(TextEncoder(300, 16, layers=1, heads=4, length=12), ImageEncoder((16,), 1), 8)
    for embedding in (net.embed_text(tokens(3, 5)), net.embed_image(torch.randn(2, 3, 64, 64))):
        assert embedding.shape == (2, 8)
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))
    assert net.scale.item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        net.log_scale.fill_(9.0)
    assert net.scale.item() == pytest.approx(100)


# Loss -----------------------------------------------------------------------------------------------------------------


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(shape, generator=seeded(seed)), dim=-1)


def test_contrastive_loss_is_clips():
    """Against transformers' loss of the same logits."""
    from transformers.models.clip import modeling_clip

    image, text = unit(6, 8), unit(6, 8, seed=1)
    theirs = modeling_clip.image_text_contrastive_loss(20.0 * text @ image.T)
    torch.testing.assert_close(contrastive_loss(image, text, 20.0), theirs)


def test_a_pair_that_is_no_negative_is_left_out():
    """It has no share in the loss, and no gradient; a mask on the diagonal changes nothing."""
    image, text = unit(3, 8).requires_grad_(), unit(3, 8, seed=1)
    also = torch.eye(3, dtype=torch.bool)
    torch.testing.assert_close(contrastive_loss(image, text, 5.0, also), contrastive_loss(image, text, 5.0))
    also[0, 1] = True  # caption 0 is true of picture 1
    logits = 5 * text @ image.T
    by_hand = -sum(
        logits[i, i] - torch.logsumexp(torch.stack([v for j, v in enumerate(row) if (i, j) not in left]), 0)
        for left, table in (({(0, 1)}, logits), ({(1, 0)}, logits.T))
        for i, row in enumerate(table)
    )
    torch.testing.assert_close(contrastive_loss(image, text, 5.0, also), by_hand / 6)


def test_captions_of_no_picture_are_wrong_answers_for_pictures_alone():
    """They stand among the captions that a picture chooses from; no picture is asked for them."""
    image, text = unit(3, 8), unit(5, 8, seed=1)
    logits, own = 4 * text @ image.T, torch.arange(3)
    by_hand = (F.cross_entropy(logits[:3], own) + F.cross_entropy(logits.T, own)) / 2
    torch.testing.assert_close(contrastive_loss(image, text, 4.0), by_hand)
    also = torch.zeros(5, 3, dtype=torch.bool)
    also[3:] = True  # wrong captions that turn out true of all pictures: as if they were not there
    torch.testing.assert_close(contrastive_loss(image, text, 4.0, also), contrastive_loss(image, text[:3], 4.0))


def test_misread_has_one_attribute_wrong():
    """Whatever is drawn; and the caption is right of a training picture, and of none of the thing."""
    train = emoji("train").rows
    right, rows, seen, nothing = {row.caption for row in train}, train[::40], set(), 0
    for row, u in zip(rows, torch.rand(len(rows), generator=seeded()).tolist(), strict=True):
        wrong = misread(row, u, right)
        if wrong is None:
            nothing += 1
            assert not {text for name in VALUES for text in swapped(row, name).values()} & right - {row.caption}
            continue
        differ = [name for name in VALUES if getattr(row, name) != getattr(wrong, name)]
        assert len(differ) == 1
        assert wrong.caption == swapped(row, differ[0])[getattr(wrong, differ[0])] != row.caption
        assert wrong.caption in right
        states = torch.ones(1, len(ATTRIBUTES), dtype=torch.bool)
        assert not describes(states, facts([wrong]), facts([row])).any()
        seen.add(differ[0])
    assert seen == set(VALUES)
    assert nothing < 0.2 * len(rows)
    assert misread(rows[0], 0.0, right) != misread(rows[0], 0.999999, right)
    assert misread(rows[0], 0.5, set()) is None


def test_contrastive_loss_refuses_other_shapes():
    with pytest.raises(ValueError, match="must be"):
        contrastive_loss(unit(4, 8), unit(3, 8), 1.0)
    with pytest.raises(ValueError, match="must be"):
        contrastive_loss(unit(4, 8), unit(4, 7), 1.0)


def test_retrieval_by_hand():
    image = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    text = torch.tensor([[1.0, 0.1], [0.0, 2.0]])  # text 1's own picture is the second nearest
    assert retrieval(image, text, 1) == 0.5
    assert retrieval(image, text, 2) == 1.0
    with pytest.raises(ValueError, match="texts"):
        retrieval(text, image)


def test_moved_by_whole_pixels_is_a_shift():
    """Each picture by its own, within the bound, and white comes in."""
    x = torch.rand(64, 3, 16, 16, generator=seeded()) * 2 - 1
    assert torch.allclose(moved(x, 0, 0, 0, seeded()), x, atol=1e-5)
    dot = torch.ones(200, 3, 17, 17)
    dot[:, :, 8, 8] = -1  # black, in the middle of white
    y = moved(dot, 3, 0, 0, seeded(1))
    assert y.min() >= -1.001
    assert y.max() <= 1.001
    weight = (1 - y[:, 0]) / 2
    torch.testing.assert_close(weight.sum((1, 2)), torch.ones(200), atol=1e-4, rtol=0)
    at = torch.arange(17.0) - 8
    places = torch.stack([(weight.sum(1) * at).sum(1), (weight.sum(2) * at).sum(1)])
    assert 2.8 < places.abs().max() <= 3.001
    assert places.mean(1).abs().max() < 0.4


def test_moved_turns_and_zooms():
    """A dot at (0, r) from the middle comes to r scale, at the angle it was turned by; both within their bounds."""
    r, x = 12, torch.ones(300, 3, 49, 49)
    x[:, :, 23:26, 24 + r - 1 : 24 + r + 2] = -1
    weight = (1 - moved(x, 0, 0.2, 10, seeded(2))[:, 0]).clamp(min=0)
    weight = weight / weight.sum((1, 2), keepdim=True)
    at = torch.arange(49.0) - 24
    across, down = (weight.sum(1) * at).sum(1), (weight.sum(2) * at).sum(1)
    radius, angle = (across**2 + down**2).sqrt() / r, torch.atan2(down, across).rad2deg()
    assert 0.79 < radius.min() < 0.83
    assert 1.17 < radius.max() < 1.21
    assert 9 < angle.abs().max() < 10.5
    assert abs(angle.mean()) < 1


# Recipes --------------------------------------------------------------------------------------------------------------

TINY = {"d": 16, "layers": 1, "widths": (8, 16), "blocks": 1, "patch": 8, "batch": 8, "alike": 2, "steps": 6}
SMALL = {"clip": replace(Clip(), **TINY), "judge": replace(Judge(), **TINY, swaps=3)}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The recipe sees two dozen pictures of each split, people among them; returns the splits that it asked for."""
    asked: list[str] = []

    def some(split: str, *more: str) -> Captioned:
        asked.extend([split, *more])
        images, rows = emoji(split, *more)
        people = [k for k, row in enumerate(rows) if all(swapped(row, name) for name in VALUES)][:16]
        which = [*people, *(k for k, row in enumerate(rows) if not row.tone)][:24]
        return Captioned(images[which], tuple(rows[k] for k in which))

    monkeypatch.setattr("ddpm_edu.recipes.clip.emoji", some)
    return asked


def finish(recipe: Clip, path: Path | None = None, stop: int | None = None) -> tuple[Learner, list[float]]:
    """Trains on from the file `path`, to the end or to step `stop`; the learner and the losses."""
    learners, losses = recipe.learners(), []
    loop = recipe.train(learners, path, progress=False)
    for step, loss in loop:
        losses.append(loss["clip"])
        if step == stop:
            break
    loop.close()
    return learners["clip"], losses


@pytest.mark.parametrize("name", SMALL)
def test_a_recipe_resumes_exactly(few: list[str], tmp_path: Path, name: str):
    """Stopped after two steps and resumed: the very losses, weights, averages and moments of an uninterrupted run."""
    whole, losses = finish(SMALL[name])
    path = tmp_path / "run.safetensors"
    _, first = finish(SMALL[name], path, stop=2)
    resumed, rest = finish(SMALL[name], path)
    assert first + rest == losses
    assert len(set(losses)) == 6
    assert torch.tensor(losses).isfinite().all()
    for part in ("net", "ema"):
        for key, value in whole.state_dict()[part].items():
            assert torch.equal(value, resumed.state_dict()[part][key]), (part, key)
    for p, q in zip(whole.net.parameters(), resumed.net.parameters(), strict=True):
        for key, value in whole.optimizer.state[p].items():
            assert torch.equal(value, resumed.optimizer.state[q][key]), key
    assert set(few) == {"train"}


def test_a_recipe_learns(few: list[str]):
    """On two dozen pictures, in 80 steps: from the log of the batch's size, which is chance, well below it."""
    _, losses = finish(replace(SMALL["clip"], steps=80, lr=3e-3, alike=1))
    chance = torch.tensor(8.0).log()
    assert torch.tensor(losses[:5]).mean() > 0.8 * chance
    assert torch.tensor(losses[-10:]).mean() < 0.6 * chance


@pytest.mark.parametrize("name", SMALL)
def test_quality_looks_at_val_alone(few: list[str], name: str):
    recipe = SMALL[name]
    found = recipe.quality(recipe.model())
    assert few == ["val"]
    assert found.pop("n") == "24 pictures of val"
    assert found.keys() == {"top_1", "top_5", "style", "tone", "gender"}
    assert all(0 <= value <= 1 for value in found.values())
    assert found["top_1"] <= found["top_5"]


def test_the_judge_is_another_model():
    """Of the same sizes it still would start from other weights and see other batches: nothing is shared but data."""
    clip, judge = SMALL["clip"], replace(SMALL["judge"], swaps=0)
    a, b = (recipe.model().state_dict() for recipe in (clip, judge))
    assert a.keys() == b.keys()
    assert all(not torch.equal(a[key], b[key]) for key in a if a[key].unique().numel() > 1)
    batches = clip.batches(clip.data())
    assert not torch.equal(batches(seeded(clip.seed)), batches(seeded(judge.seed)))
    assert Judge().d < Clip().d
    assert Judge().swaps > 0


def test_embeddings_do_not_depend_on_the_company(learned: Tokenizer):
    """A picture among 101 others, a text among longer ones."""
    model, (images, rows) = SMALL["clip"].model().eval(), emoji("val")
    many = embed_images(model, images[:102])
    assert many.shape == (102, 16)
    torch.testing.assert_close(many[101:], embed_images(model, images[101:102]))
    texts = ["red heart", *(row.caption for row in rows[:5])]
    torch.testing.assert_close(embed_texts(model, texts, learned)[:1], embed_texts(model, texts[:1], learned))


def test_reads_by_hand(monkeypatch: pytest.MonkeyPatch, learned: Tokenizer):
    """Pictures that look like their caption are read right; those that look like it with another tone are not."""
    rows = [row for row in emoji("val").rows if swapped(row, "tone")][:8]
    heart = next(row for row in emoji("val").rows if not row.tone)  # nothing to read: no answer
    texts = sorted({text for row in rows for text in swapped(row, "tone").values()})
    place = {text: k for k, text in enumerate(texts)}

    def one_hot(model: CLIP, texts: list[str], by: Tokenizer) -> Tensor:
        return F.one_hot(torch.tensor([place[text] for text in texts]), len(place)).float()

    monkeypatch.setattr("ddpm_edu.recipes.clip.embed_texts", one_hot)

    def looks_like(row: Emoji, right: bool) -> str:
        said = swapped(row, "tone")
        return row.caption if right else next(text for tone, text in said.items() if tone != row.tone)

    right = [True, False, False, True, True, False, True, True]
    seen = [looks_like(row, good) for row, good in zip(rows, right, strict=True)]
    image = torch.cat([one_hot(None, seen[:3], learned), torch.zeros(1, len(place)), one_hot(None, seen[3:], learned)])
    assert reads(None, image, [*rows[:3], heart, *rows[3:]], "tone", learned).tolist() == right


# The table of notebook 11 ---------------------------------------------------------------------------------------------


def test_the_table_by_hand(monkeypatch: pytest.MonkeyPatch):
    """Texts at right angles to each other. Five of eight pictures look like their captions, two like each other's, one
    like its own caption with another tone."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import clip_table

    by_base = {row.base: row for row in emoji("val").rows if swapped(row, "tone") and not swapped(row, "gender")}
    rows = list(by_base.values())[:8]
    texts = clip_table.said_of(rows)
    assert len(set(texts)) == len(texts)
    text = dict(zip(texts, torch.eye(len(texts)), strict=True))
    other_tone = next(said for tone, said in swapped(rows[7], "tone").items() if tone != rows[7].tone)
    looks = [*(row.caption for row in rows[:5]), rows[6].caption, rows[5].caption, other_tone]
    found = clip_table.measure(torch.stack([text[one] for one in looks]), rows, text)
    assert found["n"] == 8
    assert found["top_1"]["share"] == 0.75  # no picture looks like caption 7, so none is nearer than its own
    assert found["score"]["mean"] == pytest.approx(2.5 * 5 / 8)
    assert found["reads"].keys() == {"style", "tone"}
    right = 5 + sum(row.tone == "light" for row in rows[5:7])  # where all are equal the first is taken
    assert found["reads"]["tone"]["share"] == pytest.approx(right / 8, abs=1e-4)
    style, tone = found["below"]["style"], found["below"]["tone"]
    assert style["n"] == tone["n"] == 8
    assert style["mean"] == pytest.approx(2.5 * 5 / 8, abs=1e-4)
    assert 0 < style["low"] < style["mean"] < style["high"] <= 2.5
    assert style["score"] == 0
    assert tone["score"] == pytest.approx(2.5 / 4 / 8, abs=1e-4)  # one wrong value of four, for one picture


@pytest.mark.parametrize("n", [2, 3, 30, 595])
def test_no_picture_keeps_its_caption(monkeypatch: pytest.MonkeyPatch, n: int):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import clip_table

    order = clip_table.others(n)
    assert (order != torch.arange(n)).all()
    assert torch.equal(order.sort().values, torch.arange(n))
