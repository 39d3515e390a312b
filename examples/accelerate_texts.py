"""An Accelerate loop on texts that RHO-LOSS selects; `# rhostream` marks the lines that an ordinary loop has otherwise.

accelerate launch examples/accelerate_texts.py WORKSPACE [--steps N]
"""

import argparse

import torch
from accelerate import Accelerator
from transformers import AlbertConfig, AutoModelForSequenceClassification

import rhostream as rho

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("workspace")
arguments.add_argument("--steps", type=int, default=100)
options = arguments.parse_args()

accelerator = Accelerator()
stream = rho.CandidateStream(options.workspace, il="bag_of_ngrams", super_batch_size=320)  # rhostream
size = {"embedding_size": 16, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
config = AlbertConfig(vocab_size=16_384, intermediate_size=64, num_labels=len(stream.corpus.classes), **size)
model = AutoModelForSequenceClassification.from_config(config)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
selector = rho.OnlineSelector(model, batch_size=32, select="learnable")  # rhostream
loader = rho.SelectingLoader(stream, selector, collate=rho.tokens_and_labels)  # rhostream: for DataLoader(dataset, …)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

step = 0
while step < options.steps:
    for batch in loader:  # the rest of an epoch
        loss = model(**batch).loss
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        accelerator.print(f"step {step}: loss {loss.item():.3f}, {len(batch['labels'])} texts")
        if step == options.steps:
            break
accelerator.end_training()
