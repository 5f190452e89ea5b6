"""A linear n-gram model whose out-of-fold opinion of the training texts becomes part of the training target.

Distillation (Hinton, Vinyals, Dean 2015) from a model too large to ship: TF-IDF weights of all uni- and bigrams and
logistic regression. Each text is judged by a model that never saw it (cross-fitting), from the training split alone.
"""

from collections.abc import Sequence

import numpy as np

from karui.runtime.tokenise import tokenise

FOLDS = 5
INVERSE_PENALTY = 20.0  # scikit-learn's C


def linear_teacher(texts: Sequence[str], labels: np.ndarray, n_classes: int, *, seed: int) -> np.ndarray:
    """Out-of-fold class probabilities (N, n_classes), float32, of N texts with labels (N,).

    Classes with fewer texts than folds are judged by models that may not know them: their probability is then 0.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import KFold
    from sklearn.multiclass import OneVsRestClassifier

    rare = 3 if len(texts) >= 10_000 else 2
    vectorizer = TfidfVectorizer(
        tokenizer=tokenise,
        token_pattern=None,  # type: ignore[arg-type]  # scikit-learn's stubs read the type from the default
        lowercase=False,
        ngram_range=(1, 2),
        min_df=rare,
        sublinear_tf=True,
        dtype=np.float32,  # type: ignore[arg-type]  # same
    )
    features = vectorizer.fit_transform(texts)
    found = np.zeros((len(texts), n_classes), dtype=np.float32)
    for known, held_out in KFold(FOLDS, shuffle=True, random_state=seed).split(labels):
        one = LogisticRegression(C=INVERSE_PENALTY, solver="liblinear", random_state=seed)
        model = one if n_classes == 2 else OneVsRestClassifier(one)
        model.fit(features[known], labels[known])
        found[np.ix_(held_out, model.classes_)] = model.predict_proba(features[held_out])
    return found
