from functools import partial

import numpy as np
import pytest
import torch

from fakegan.data.store import FaceStore
from fakegan.labels import FAKE, REAL
from fakegan.nets.simple_cnn import SimpleCNN
from fakegan.training.classifier import Classifier, fake_probability
from tests.helpers import fit, real_and_fake

ADAM = partial(torch.optim.AdamW, lr=1e-3, fused=True)


def test_score_is_the_probability_of_fake() -> None:
    logits = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])  # (real, fake)
    expected = [0.5, 1 / (1 + np.exp(2.0)), 1 / (1 + np.exp(-2.0))]
    assert fake_probability(logits).tolist() == pytest.approx(expected)


def test_it_learns_which_class_is_fake_and_validates_in_eval_mode(store: FaceStore) -> None:
    data = real_and_fake(store)
    module = Classifier(SimpleCNN(), ADAM)
    modes: list[bool] = []
    module.net.register_forward_hook(lambda net, *_: modes.append(net.training))
    trainer = fit(module, data, epochs=3)
    assert trainer.callback_metrics["val/auroc"] > 0.95
    steps, val_batches = len(data.train_dataloader()), len(data.val_dataloader())
    assert modes == ([True] * steps + [False] * val_batches) * 3
    module.eval()
    with torch.no_grad():
        batch = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
        scores = fake_probability(module(batch["x"]))
    assert scores[batch["label"] == FAKE].mean() > scores[batch["label"] == REAL].mean() + 0.3
