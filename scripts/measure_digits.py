"""How good are the generated digits? The course's classifier reads them, beside real digits it has not seen.

    python scripts/measure_digits.py [--seeds 3]      # some 8 minutes on two CPU cores

For 1,000 digits of each shipped model and seed, and for the 1,000 of the test set: how sure the classifier
(digits_features) is (mean of its largest probability, and the share above 0.9) and how even the ten classes are
(entropy over log 10; 1 is perfectly even). Prints a table and writes data/results/digits_quality.json.
"""

from __future__ import annotations

import argparse
import json
import math

import torch
from manifest import head, record
from torch import Tensor

from ddpm_edu import pretrained
from ddpm_edu.codec import Pixels
from ddpm_edu.data import DATA, digits
from ddpm_edu.nets.features import FeatureNet
from ddpm_edu.recipes import RECIPES, Generative


@torch.no_grad()
def read(net: FeatureNet, images: Tensor) -> dict[str, float | list[int]]:
    """images: (n, 28, 28) uint8."""
    probability = net.logits(Pixels().encode(images)).softmax(1)
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
    recipe, net = pretrained.read(pretrained.shipped("digits_features"))
    accuracy = recipe.quality(net)["accuracy"]
    rows = {"real, test set": read(net, digits("test")[0])}
    for name in (name for name, one in RECIPES.items() if issubclass(one, Generative)):
        recipe, model = pretrained.read(pretrained.shipped(name))
        for seed in range(options.seeds):
            rows[f"{name}, seed {seed}"] = read(net, pretrained.sample(recipe, model, 1000, seed=seed))
    print(f"\nclassifier: {accuracy:.3f} of the 1,000 test digits right")
    for name, row in rows.items():
        sure = f"confidence {row['confidence']:.3f}  above 0.9: {row['above_0.9']:.3f}"
        print(f"{name:20s} {sure}  evenness {row['evenness']:.4f}  {row['counts']}")
    out = DATA / "results" / "digits_quality.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    kept = {"n": 1000, "classifier_accuracy": accuracy, "rows": rows}
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
