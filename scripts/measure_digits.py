"""How good are the generated digits? A classifier trained on real ones reads them, beside real digits it has not seen.

    python scripts/measure_digits.py [--seeds 3]      # some 8 minutes on two CPU cores

For 1,000 digits of each shipped model and seed, and for the 1,000 of the test set: how sure the classifier is (mean of
its largest probability, and the share above 0.9) and how even the ten classes are (entropy over log 10; 1 is perfectly
even). Prints a table and writes data/results/digits_quality.json.
"""

from __future__ import annotations

import argparse
import json
import math

import torch
import torch.nn.functional as F
from manifest import head, record
from torch import Tensor, nn
from tqdm.auto import tqdm

from ddpm_edu import pretrained
from ddpm_edu.codec import Pixels
from ddpm_edu.data import DATA, digits
from ddpm_edu.recipes import RECIPES


def classifier(epochs: int = 12) -> nn.Module:
    """A small convolutional classifier, trained on the 9,000 training digits, shifted by up to two pixels."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 128, 3, padding=1), nn.BatchNorm2d(128), nn.ReLU(), nn.Flatten()),
        *(nn.Dropout(0.3), nn.Linear(128 * 49, 10)),
    )
    images, labels = digits("train")
    x = F.pad(Pixels().encode(images), (2, 2, 2, 2), value=-1.0)
    batches = math.ceil(len(x) / 128)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, epochs * batches)
    for _ in tqdm(range(epochs), "classifier"):
        for rows in torch.randperm(len(x)).chunk(batches):
            i, j = torch.randint(5, (2,)).tolist()
            loss = F.cross_entropy(net(x[rows][..., i : i + 28, j : j + 28]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


@torch.no_grad()
def read(net: nn.Module, images: Tensor) -> dict[str, float | list[int]]:
    """images: (n, 28, 28) uint8."""
    probability = net(Pixels().encode(images)).softmax(1)
    sure, label = probability.max(1)
    counts = label.bincount(minlength=10)
    share = counts / counts.sum()
    entropy = -(share * share.clamp(min=1e-12).log()).sum() / math.log(10)
    return {
        "confidence": round(sure.mean().item(), 4),
        "above_0.9": round((sure > 0.9).float().mean().item(), 4),
        "evenness": round(entropy.item(), 4),
        "counts": counts.tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    net, (images, labels) = classifier(), digits("test")
    with torch.no_grad():
        accuracy = (net(Pixels().encode(images)).argmax(1) == labels).float().mean().item()
    rows = {"real, test set": read(net, images)}
    for name in RECIPES:
        recipe, model = pretrained.read(pretrained.shipped(name))
        for seed in range(options.seeds):
            rows[f"{name}, seed {seed}"] = read(net, pretrained.sample(recipe, model, 1000, seed=seed))
    print(f"\nclassifier: {accuracy:.3f} of the 1,000 test digits right")
    for name, row in rows.items():
        sure = f"confidence {row['confidence']:.3f}  above 0.9: {row['above_0.9']:.3f}"
        print(f"{name:20s} {sure}  evenness {row['evenness']:.4f}  {row['counts']}")
    out = DATA / "results" / "digits_quality.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    kept = {"n": 1000, "classifier_accuracy": round(accuracy, 4), "rows": rows}
    out.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    record(
        "results/digits_quality.json",
        what="how a classifier trained on real digits reads generated ones",
        licence="MIT",
        command="python scripts/measure_digits.py",
        commit=head(),
    )


if __name__ == "__main__":
    main()
