"""A head in a model of transformers: its Trainer, and what save_pretrained and from_pretrained do with the state."""

from pathlib import Path

import pytest

from etfopt import InputError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", reason="transformers comes with the extra integrations")
pytest.importorskip("accelerate", reason="accelerate comes with the extra integrations")
from torch.utils.data import Dataset

from etfopt.nn import FixedETFHead, LearnedHead, NearestETFHead
from tests.tools.guides import changed
from tests.tools.head_cases import same, snapshot

pytestmark = pytest.mark.filterwarnings("ignore")
C, WORDS, LENGTH = 4, 40, 6
MAKE = {
    "learned": LearnedHead,
    "fixed": FixedETFHead,
    "fixed, random": lambda d, c: FixedETFHead(d, c, generator=torch.Generator("cpu").manual_seed(7)),
    "nearest": NearestETFHead,
    "nearest, reduced": lambda d, c: NearestETFHead(d, c, frame="reduced"),
}


@pytest.fixture(autouse=True)
def _filled():
    """Uninitialised memory is NaN, so that no test passes by luck."""
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(mode=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    transformers.logging.set_verbosity_error()
    yield
    torch.use_deterministic_algorithms(mode=False)
    torch.utils.deterministic.fill_uninitialized_memory = before


GUIDE = changed("hugging_face")


class Classifier(GUIDE["FineTuned"]):
    """As the guide has it, with any head."""

    def __init__(self, config: transformers.BertConfig) -> None:
        super().__init__(config)
        assert isinstance(self.classifier, NearestETFHead)
        self.classifier = MAKE[config.head](config.hidden_size, config.num_labels)


class Forgetful(Classifier):
    """Without the lines for what a checkpoint lacks."""

    _init_weights = transformers.BertForSequenceClassification._init_weights


class Sentences(Dataset):
    """Sentences that hold words of their class."""

    def __init__(self, n: int) -> None:
        draw = torch.Generator().manual_seed(0)
        self.labels = torch.randint(C, (n,), generator=draw)
        self.words = torch.randint(WORDS // C, (n, LENGTH), generator=draw) * C + self.labels[:, None]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.words[i], "labels": self.labels[i]}


def fresh(head: str = "nearest", kind: type[Classifier] = Classifier) -> Classifier:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(vocab_size=WORDS, num_labels=C, max_position_embeddings=LENGTH, **sizes)
    config.head = head
    return kind(config)


def batch(n: int = 24) -> dict[str, torch.Tensor]:
    data = Sentences(n)
    return {"input_ids": data.words, "labels": data.labels}


def stepped(head: str, kind: type[Classifier] = Classifier) -> Classifier:
    """A model that has seen two batches."""
    model = fresh(head, kind)
    for n in (16, 24):
        model.train()(**batch(n)).loss.backward()
    return model.eval()


def trainer(model: Classifier, n: int, folder: Path, **options: object) -> transformers.Trainer:
    settings = {"num_train_epochs": 3, "per_device_train_batch_size": 32, "learning_rate": 5e-3, "disable_tqdm": True}
    settings |= {"use_cpu": True, "report_to": [], "save_strategy": "no", "logging_strategy": "no", **options}
    arguments = transformers.TrainingArguments(output_dir=str(folder), **settings)
    return transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=Sentences(n),
        eval_dataset=Sentences(200),
        compute_metrics=lambda p: {"accuracy": float((p.predictions.argmax(1) == p.label_ids).mean())},
    )


@pytest.mark.parametrize("n", [512, 513])
@pytest.mark.parametrize("head", ["learned", "fixed", "nearest"])
def test_the_trainer_trains_every_head_whatever_the_last_batch(head, n, tmp_path):
    run = trainer(fresh(head), n, tmp_path)
    run.train()
    assert run.evaluate()["eval_accuracy"] > 0.97


OPTIONS = {
    "accumulation": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 8},
    "checkpointing": {"gradient_checkpointing": True},
    "bf16": {"bf16": True},
}


@pytest.mark.parametrize("way", OPTIONS)
def test_the_trainer_trains_the_nearest_head_in_other_ways(way, tmp_path):
    run = trainer(fresh(), 257, tmp_path, num_train_epochs=4, **OPTIONS[way])
    run.train()
    assert run.evaluate()["eval_accuracy"] > 0.97


def test_the_trainer_resumes_the_state_of_the_head(tmp_path):
    whole = trainer(fresh(), 96, tmp_path / "a", save_strategy="epoch", num_train_epochs=2)
    whole.train()
    rest = trainer(fresh(), 96, tmp_path / "b", num_train_epochs=2)
    rest.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-3"))
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(rest.model.state_dict()[name], value, rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", [Classifier, Forgetful])
@pytest.mark.parametrize("head", MAKE)
def test_what_is_saved_comes_back_to_the_bit_in_every_precision(head, kind, dtype, tmp_path):
    model = stepped(head, kind)
    model.save_pretrained(tmp_path)
    options = {} if dtype is None else {"dtype": dtype}
    loaded, report = kind.from_pretrained(tmp_path, output_loading_info=True, **options)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    if head != "learned" or dtype is None:  # the rows of a learned head are parameters
        assert same(loaded.classifier.state_dict(), model.classifier.state_dict())
    x, rounding = batch()["input_ids"], 0.1 if dtype else 0.0
    torch.testing.assert_close(loaded(x).logits.float(), model(x).logits, rtol=0, atol=rounding)
    before = snapshot(loaded.classifier)
    loaded.train()(**batch()).loss.backward()
    assert head == "learned" or not same(loaded.classifier.state_dict(), before)


def without_head(model: Classifier, folder: Path) -> Path:
    """A checkpoint of the network below, as one starts from."""
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("classifier.")}
    model.save_pretrained(folder, state_dict=state)
    return folder


@pytest.mark.parametrize("head", MAKE)
def test_a_head_that_the_checkpoint_lacks_is_as_new(head, tmp_path):
    loaded, report = Classifier.from_pretrained(without_head(stepped(head), tmp_path), output_loading_info=True)
    assert {f"classifier.{name}" for name in loaded.classifier.state_dict()} == report["missing_keys"]
    if head == "learned":
        torch.testing.assert_close(loaded.classifier.rows.norm(dim=1).detach(), torch.ones(C))
    else:
        assert same(loaded.classifier.state_dict(), fresh(head).classifier.state_dict())
    assert loaded.train()(**batch()).loss.isfinite()


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("head", [head for head in MAKE if head != "learned"])
def test_a_head_that_nobody_initialised_raises(head, mode, tmp_path):
    loaded = Forgetful.from_pretrained(without_head(stepped(head), tmp_path))
    with pytest.raises(InputError, match=r"U is not near any rotation.*reset_parameters\(\)"):
        loaded.train(mode)(**batch())


@pytest.mark.parametrize("head", MAKE)
def test_a_checkpoint_of_other_classes_gives_a_head_that_is_as_new(head, tmp_path):
    stepped(head).save_pretrained(tmp_path)
    loaded = Classifier.from_pretrained(tmp_path, num_labels=3, ignore_mismatched_sizes=True)
    expected = MAKE[head](16, 3)
    if head != "learned":
        assert same(loaded.classifier.state_dict(), expected.state_dict())
    assert loaded.train()(input_ids=batch()["input_ids"], labels=batch()["labels"] % 3).loss.isfinite()
