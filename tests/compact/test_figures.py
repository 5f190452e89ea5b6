"""Figures against values worked out by hand and against torch."""

import math

import numpy as np
import pytest
import torch

from karui.compact.figures import accuracy, by_class, confusion, nll, predictions, probabilities

TWO = np.array([[2.0], [-1.0], [0.5], [0.0]], np.float32)
THREE = np.array([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0], [1.0, 0.5, 0.9]], np.float32)


def test_two_classes_have_one_output():
    np.testing.assert_array_equal(predictions(TWO), [1, 0, 1, 0])
    labels = np.array([1, 1, 1, 0])
    assert accuracy(TWO, labels) == 0.75
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(TWO[:, 0]), torch.tensor(labels).float()
    )
    assert nll(TWO, labels) == pytest.approx(float(expected), rel=1e-6)
    np.testing.assert_allclose(probabilities(TWO)[:, 1], torch.sigmoid(torch.tensor(TWO[:, 0])), rtol=1e-6)


def test_more_classes():
    labels = np.array([0, 2, 0])
    np.testing.assert_array_equal(predictions(THREE), [0, 1, 0])
    expected = torch.nn.functional.cross_entropy(torch.tensor(THREE), torch.tensor(labels))
    assert nll(THREE, labels) == pytest.approx(float(expected), rel=1e-6)
    np.testing.assert_allclose(probabilities(THREE), torch.softmax(torch.tensor(THREE), 1), rtol=1e-6)
    table = confusion(THREE, labels, 3)
    np.testing.assert_array_equal(table, [[2, 0, 0], [0, 0, 0], [0, 1, 0]])
    first, second, third = by_class(table, ["a", "b", "c"])
    assert (first.documents, first.recall, first.precision) == (2, 1.0, 1.0)
    assert math.isnan(second.recall)
    assert second.precision == 0.0
    assert third.recall == 0.0
    assert math.isnan(third.precision)


def test_extreme_logits_stay_finite():
    assert nll(np.array([[1e4], [-1e4]]), np.array([0, 0])) == pytest.approx(5000.0)
    assert np.isfinite(probabilities(np.array([[1e4], [-1e4]]))).all()


def test_no_documents():
    assert math.isnan(accuracy(TWO[:0], np.zeros(0, np.int64)))
    assert math.isnan(nll(TWO[:0], np.zeros(0, np.int64)))
