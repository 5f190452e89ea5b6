"""A classification task of milliseconds, with all that makes resuming hard: dropout, a penalty, adaptive steps."""

import torch
from torch import nn
from torch.nn import functional as F

DOCUMENTS, WORDS, TOKENS, BATCH = 320, 300, 6, 32


class TinyModel(nn.Module):
    """Mean of embeddings, dropout, linear: (B, T) to (B, 2)."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 8)
        self.dropout = nn.Dropout(0.2)
        self.output = nn.Linear(8, 2)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, ids):
        if self.training:
            self.calls += 1
        return self.output(self.dropout(self.embedding(ids).mean(1)))


class TinyTask:
    """Documents of six words; the label is whether the first word's id is even."""

    num_examples = DOCUMENTS

    def __init__(self, seed=0, *, has_penalty=True):
        torch.manual_seed(seed)
        self.seed, self.has_penalty = seed, has_penalty
        self.model = TinyModel()
        generator = torch.Generator().manual_seed(seed + 1)
        self.ids = torch.randint(0, WORDS, (2 * DOCUMENTS, TOKENS), generator=generator)
        self.labels = self.ids[:, 0] % 2
        self.losses = []

    def steps_per_epoch(self, epoch):
        return DOCUMENTS // BATCH - epoch % 2  # epochs differ in length, as they do with buckets

    def batch(self, epoch, step):
        generator = torch.Generator().manual_seed(1000 * self.seed + epoch)
        rows = torch.randperm(DOCUMENTS, generator=generator)[step * BATCH : (step + 1) * BATCH]
        return self.ids[rows], self.labels[rows]

    def loss(self, batch):
        ids, labels = batch
        loss = F.cross_entropy(self.model(ids), labels)
        self.losses.append(float(loss.detach()))
        return loss

    def penalty(self):
        return self.model.embedding.weight.abs().sum() if self.has_penalty else None

    def evaluate(self, split):
        part = {"valid": slice(DOCUMENTS, None), "test": slice(0, DOCUMENTS)}[split]
        logits = self.model(self.ids[part])
        labels = self.labels[part]
        accuracy = (logits.argmax(1) == labels).double().mean()
        return {"accuracy": float(accuracy), "nll": float(F.cross_entropy(logits, labels))}

    def status(self):
        return {"density": float((self.model.embedding.weight.abs() > 1.0).double().mean())}

    def parameter_groups(self, settings):
        embedding = list(self.model.embedding.parameters())
        return [
            {"params": embedding, "lr": settings.lr * 2},
            {"params": list(self.model.output.parameters())},
        ]
