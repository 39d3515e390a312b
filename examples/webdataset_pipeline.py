"""The smallest change that makes an ordinary WebDataset loop train on what RHO-LOSS selects.

rho index 'shards/{000..099}.tar' --workspace W && rho il train --workspace W && rho il score --workspace W
python examples/webdataset_pipeline.py 'shards/{000..099}.tar' W
"""

import sys

import torch
import webdataset as wds
from torch.nn.functional import cross_entropy
from torchvision.models import resnet18
from torchvision.transforms.v2 import CenterCrop, Compose, Resize

import rhostream as rho

resize = Compose([Resize(64), CenterCrop(64)])
dataset = (
    wds.WebDataset(sys.argv[1], shardshuffle=100)
    .shuffle(1000)
    .decode("torchrgb")
    .compose(rho.with_il(sys.argv[2], il="strided_cnn", on_missing="drop"))  # new; the holdout is dropped
    .to_tuple("jpg;png;webp", "cls", "il")  # "il" is new
    .map_tuple(resize)
)
model = resnet18(num_classes=1000)
scorer = rho.Scorer(model)  # new
optimizer = torch.optim.AdamW(model.parameters())

for images, labels, il in torch.utils.data.DataLoader(dataset, batch_size=320, num_workers=2):  # instead of 32
    reducible = cross_entropy(scorer.logits(images), labels, reduction="none") - il  # new
    chosen = reducible.topk(min(32, len(labels))).indices  # new
    loss = cross_entropy(model(images[chosen]), labels[chosen])
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"loss {loss.item():.3f}, {len(chosen)} of {len(labels)} candidates")
