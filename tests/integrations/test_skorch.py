"""A head in a classifier of skorch, searched by scikit-learn."""

import pickle

import pytest

torch = pytest.importorskip("torch")
skorch = pytest.importorskip("skorch", reason="skorch comes with the extra integrations")
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from torch import nn

from etfopt.nn import FixedETFHead, LearnedHead, NearestETFHead
from tests.tools.guides import changed
from tests.tools.loop_cases import HEADS

pytestmark = pytest.mark.filterwarnings("ignore")


GUIDE = changed("skorch")


def classifier(**options: object) -> skorch.NeuralNetClassifier:
    """As the guide has it."""
    torch.manual_seed(0)
    settings = {"max_epochs": 15, "lr": 0.1, "optimizer__momentum": 0.9, "train_split": None, "verbose": 0}
    return GUIDE["Classifier"](GUIDE["Network"], criterion=nn.CrossEntropyLoss, **{**settings, **options})


def digits() -> tuple:
    X, y = load_digits(return_X_y=True)
    return X[:769].astype("float32"), y[:769]  # six batches of 128, and one of one


@pytest.mark.parametrize("make", HEADS)
def test_a_search_of_scikit_learn_trains_and_scores_every_head(make):
    X, y = digits()
    pipeline = make_pipeline(MinMaxScaler(), classifier(module__head=make))
    grid = {"neuralnetclassifier__module__width": [32], "neuralnetclassifier__lr": [1e-5, 0.1]}
    names = {key.replace("neuralnetclassifier", "classifier"): values for key, values in grid.items()}
    search = GridSearchCV(pipeline, names, cv=2).fit(X, y)
    assert search.best_params_["classifier__lr"] == 0.1
    assert search.best_score_ > 0.75  # the halves are of different writers
    probabilities = search.predict_proba(X)
    assert probabilities.shape == (len(X), 10)
    assert abs(probabilities.sum(axis=1) - 1).max() < 1e-5


def test_the_head_is_searched_like_any_setting_and_the_result_pickles():
    X, y = digits()
    search = GridSearchCV(classifier(), {"module__head": [FixedETFHead, LearnedHead, NearestETFHead]}, cv=2)
    search.fit(X / 16, y)
    twin = pickle.loads(pickle.dumps(search.best_estimator_))
    assert (twin.predict(X / 16) == search.predict(X / 16)).all()
