"""The Hugging Face Trainer on what RHO-LOSS selects; `# rhostream` marks what an ordinary script has otherwise.

python examples/hf_trainer.py WORKSPACE [--steps N] [--output FOLDER] [--resume]

A resumed run skips the batches it has trained on without reading them, and goes on in the middle of the epoch. Leave
`accelerator_config` (dispatch_batches, split_batches, even_batches) alone: it says nothing to this loader.
"""

import argparse

from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments

import rhostream as rho

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("workspace")
arguments.add_argument("--steps", type=int, default=100)
arguments.add_argument("--output", default="hf_trainer")
arguments.add_argument("--resume", action="store_true", help="from the last checkpoint of --output")
options = arguments.parse_args()

stream = rho.CandidateStream(options.workspace, il="strided_cnn", super_batch_size=320)  # rhostream


class SelectingTrainer(Trainer):  # rhostream: the Trainer is given no train_dataset
    def get_train_dataloader(self) -> rho.SelectingLoader:
        ledger = rho.Ledger(options.workspace, "hf_trainer", overwrite=not options.resume)
        batch_size = self.args.per_device_train_batch_size * self.args.world_size
        selector = rho.OnlineSelector(self.model, batch_size=batch_size, select="learnable", ledger=ledger)
        return rho.SelectingLoader(stream, selector, collate=rho.pixel_values_and_labels)


config = ResNetConfig(
    num_labels=len(stream.corpus.classes), embedding_size=32, hidden_sizes=[32, 64], depths=[2, 2], layer_type="basic"
)
settings = TrainingArguments(
    output_dir=options.output,
    max_steps=options.steps,
    per_device_train_batch_size=32,
    learning_rate=1e-3,
    save_steps=max(1, options.steps // 2),
    logging_steps=1,
    report_to="none",
)
trainer = SelectingTrainer(ResNetForImageClassification(config), settings)
result = trainer.train(resume_from_checkpoint=options.resume or None)
print(f"{trainer.state.global_step} steps, loss {result.training_loss:.3f}")
