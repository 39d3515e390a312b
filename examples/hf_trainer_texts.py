"""The Hugging Face Trainer on texts that RHO-LOSS selects; `# rhostream` marks what an ordinary script has otherwise.

python examples/hf_trainer_texts.py WORKSPACE [--model FOLDER] [--steps N] [--output FOLDER]

FOLDER holds a sequence classifier and its tokenizer.json; without one a tiny ALBERT begins from scratch. The batches
are padded to their longest; the Trainer needs no tokenizer and no collator.
"""

import argparse

from transformers import AlbertConfig, AutoModelForSequenceClassification, Trainer, TrainingArguments

import rhostream as rho

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("workspace")
arguments.add_argument("--model", default="")
arguments.add_argument("--steps", type=int, default=100)
arguments.add_argument("--output", default="hf_trainer_texts")
options = arguments.parse_args()

spec = rho.TextSpec(tokenizer=options.model or "words", length=128)  # rhostream
stream = rho.CandidateStream(options.workspace, il="bag_of_ngrams", spec=spec, super_batch_size=320)  # rhostream


class SelectingTrainer(Trainer):  # rhostream: the Trainer is given no train_dataset
    def get_train_dataloader(self) -> rho.SelectingLoader:
        ledger = rho.Ledger(options.workspace, "hf_trainer_texts", overwrite=True)
        selector = rho.OnlineSelector(
            self.model, batch_size=self.args.per_device_train_batch_size, select="learnable", ledger=ledger
        )
        return rho.SelectingLoader(stream, selector, collate=rho.tokens_and_labels)


classes = len(stream.corpus.classes)
if options.model:
    model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=classes)
else:
    size = {"embedding_size": 16, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = AlbertConfig(vocab_size=spec.vocabulary, intermediate_size=64, num_labels=classes, **size)
    model = AutoModelForSequenceClassification.from_config(config)
settings = TrainingArguments(
    output_dir=options.output,
    max_steps=options.steps,
    per_device_train_batch_size=32,
    learning_rate=2e-5,
    weight_decay=0.02,
    save_strategy="no",
    logging_steps=1,
    report_to="none",
)
trainer = SelectingTrainer(model, settings)
result = trainer.train()
print(f"{trainer.state.global_step} steps, loss {result.training_loss:.3f}")
