"""A language model of milliseconds: a tied table with sparse gradients, dropout, and a carried state."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from karui.optim import parameter_groups

WORDS, WIDTH, BATCH, LENGTH, STEPS = 200, 6, 4, 5, 8


class TiedModel(nn.Module):
    """state <- tanh(state A + embedding): the score of a few words is a product with their rows of the same table."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH, sparse=True)
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(0.2)

    def forward(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        hidden = []
        for now in self.dropout(self.embedding(ids)):
            state = torch.tanh(self.linear(state) + now)
            hidden.append(state)
        return torch.stack(hidden), state


class SparseTask:
    """The next word among 20 candidates of each step, of which the words from 100 on are seen in late steps only."""

    num_examples = WORDS

    def __init__(self, *, sparse_rule="row-adagrad", carries=True):
        torch.manual_seed(3)
        self.model = TiedModel()
        self.sparse_rule, self.carries = sparse_rule, carries
        self.state = torch.zeros(BATCH, WIDTH)
        self.losses = []

    def steps_per_epoch(self, epoch):
        return STEPS

    def batch(self, epoch, step):
        generator = torch.Generator().manual_seed(100 * epoch + step)
        words = torch.randint(0, min(60 + 20 * epoch, WORDS), (LENGTH + 1, BATCH), generator=generator)
        return words, torch.randint(0, WORDS - 50, (20,), generator=generator)

    def loss(self, batch):
        words, candidates = batch
        hidden, state = self.model(words[:-1], self.state)
        self.state = state.detach()
        table = self.model.embedding
        target = (hidden * table(words[1:])).sum(2, keepdim=True)
        scores = torch.cat([target, hidden @ table(candidates).T], dim=2)
        loss = -F.log_softmax(scores, dim=2)[..., 0].mean()
        self.losses.append(float(loss.detach()))
        return loss

    def penalty(self):
        return None

    def evaluate(self, split):
        with torch.no_grad():
            table = self.model.embedding.weight
            bpc = float(table.square().mean())
        return {"perplexity": 2.0**bpc, "bpc": bpc}

    def status(self):
        return {}

    def parameter_groups(self, settings):
        return parameter_groups(
            self.model, lr=settings.lr, sparse_lr=settings.sparse_lr, sparse_rule=self.sparse_rule
        )

    def training_state(self):
        return {"hidden": self.state} if self.carries else {}

    def load_training_state(self, state):
        if self.carries:
            self.state = state["hidden"]
