"""space/static/train.js against torch: one start, the same batches, equal slopes, losses, exact loss."""

import numpy as np
import pytest
import torch
from pages import needs_node, node

from data.corpus import corpus_from_text
from data.ngram import NGram
from data.tokenizer import CharTokenizer
from model_gpt2 import GPT
from tests.models import small
from train_gpt2 import TrainConfig, evaluate, lr_at, make_optimizers, optimizer_step, set_lr

pytestmark = needs_node

STEPS, B = 20, 4
CONFIG = dict(block_size=16, vocab_size=14, n_layer=2, n_head=2, n_embd=16)
LAW = dict(lr=3e-3, min_lr=0.0, warmup_steps=5, max_steps=STEPS, schedule="linear", beta1=0.9, beta2=0.99,
           weight_decay=0.1, grad_clip=1.0)
TEXT = ("the cat; sat\non a mát 😀" * 100)[:1517]  # 14 symbols, like the model's ids
CONV1D = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # stored (in, out)


def stored(name, tensor):
    return (tensor.mT if name.endswith(CONV1D) else tensor).detach().clone().contiguous().numpy()


def parameters(model):
    return {name: p for name, p in model.named_parameters() if name != "lm_head.weight"}


def train_with_torch(model, batches, law):
    """(grads of the first step, losses, norms), with torch's autograd and the trainer's own step."""
    model(*batches[0])[1].backward()
    grads = {name: stored(name, p.grad) for name, p in parameters(model).items()}
    model.zero_grad()
    optimizers, scaler = make_optimizers(model, law, torch.float32), torch.amp.GradScaler(enabled=False)
    losses, norms = [], []
    for step, batch in enumerate(batches):
        set_lr(optimizers, law, lr_at(law, step))
        loss, norm, _ = optimizer_step(model, optimizers, scaler, [batch], grad_clip=law.grad_clip)
        losses.append(loss.item())
        norms.append(norm.item())
    return grads, losses, norms


@pytest.fixture(scope="module", params=["plain", "wasm", "muon"])
def both(request, tmp_path_factory):
    """What node and torch make of the same task."""
    folder, draw = tmp_path_factory.mktemp("train"), torch.Generator().manual_seed(1)
    text = torch.randint(CONFIG["vocab_size"], (3000,), generator=draw)
    text[1::2] = (text[::2] + 1) % CONFIG["vocab_size"]  # half of it can be learned
    T, model = CONFIG["block_size"], small(0, 0.1, **CONFIG)  # biases and LayerNorm are at work
    starts = torch.randint(2000, (STEPS, B), generator=draw)
    windows = [torch.stack([text[s : s + T + 1] for s in row]) for row in starts.tolist()]
    batches = [(window[:, :-1], window[:, 1:]) for window in windows]
    np.concatenate([stored(n, p).ravel() for n, p in parameters(model).items()]).tofile(folder / "start.bin")
    val = text[2000:2777]  # 776 targets: the last window is a short one
    law = LAW | {"optimizer": "muon" if request.param == "muon" else "adamw", "muon_lr": 0.02}
    task = {"config": CONFIG, "B": B, "steps": STEPS, "law": law, "val": val.tolist(),
            "batches": [[x.flatten().tolist(), y.flatten().tolist()] for x, y in batches],
            "text": TEXT}
    js = node("train_node.mjs", folder, "plain" if request.param == "plain" else "wasm", job=task)
    grads, losses, norms = train_with_torch(model, batches, TrainConfig(**law))
    js["folder"] = folder / "model"
    torchs = {"names": list(parameters(model)), "grads": grads, "losses": losses, "norms": norms}
    return js, {**torchs, "val_loss": evaluate(model, val)}


def test_names_and_the_gradient_of_each_tensor(both):
    """A weight that lies elsewhere than in Python; a backward that forgets a term, a head, a second use."""
    js, torchs = both
    assert js["names"] == torchs["names"]
    for name, wanted in torchs["grads"].items():
        got = np.array(js["grads"][name]).reshape(wanted.shape)
        assert np.abs(wanted).max() > 1e-4, f"{name} has no gradient worth comparing"
        assert np.abs(got - wanted).max() < 1e-4, name
        assert np.linalg.norm(got - wanted) < 1e-3 * np.linalg.norm(wanted), name


def test_losses_norms_and_exact_loss(both):
    """Another clip, schedule, decay or optimizer; a last window that is left out or filled up."""
    js, torchs = both
    assert js["losses"] == pytest.approx(torchs["losses"], abs=1e-3)
    assert js["norms"] == pytest.approx(torchs["norms"], rel=1e-3)
    assert torchs["losses"][-1] < torchs["losses"][0] - 0.3  # something is learned
    assert js["val_loss"] == pytest.approx(torchs["val_loss"], abs=1e-4)


def test_batches_are_a_function_of_seed_and_step_and_rates_are_pythons(both):
    """Windows that come twice or never, a target that is not the next symbol, another warm-up."""
    js, _ = both
    for epoch in (js["epochs"][:31], js["epochs"][31:]):
        x, y = (np.array([batch[side] for batch in epoch]).reshape(124, 8) for side in (0, 1))
        starts = np.sort(x[:, 0])
        assert (np.diff(starts) == 8).all() and starts[0] < 8 and (y == x + 1).all()
        assert (x[:, 0] != starts).any()
    assert js["again"] == js["epochs"][5]
    law = TrainConfig(**LAW)
    for step, found in zip([0, 3, 5, 12, 19], js["rates"], strict=True):
        assert found == pytest.approx([lr_at(law, step), lr_at(law, step, 30.5)], rel=1e-12)


def test_alphabet_split_and_marks_are_pythons(both):
    """Another order of symbols (the emoji last), another cut, another way to count."""
    js, _ = both
    corpus = corpus_from_text(TEXT, "a test")
    assert js["chars"] == corpus.tokenizer.chars and len(js["chars"]) == CONFIG["vocab_size"]
    assert js["split"] == [len(corpus.train), len(corpus.val)]
    wanted = [NGram(n, CONFIG["vocab_size"]).fit(corpus.train).loss(corpus.val) for n in range(1, 6)]
    assert js["marks"] == pytest.approx(wanted, abs=1e-9)
    table = NGram.load(js["folder"] / "ngram5.npz")
    assert table.loss(corpus.val) == pytest.approx(wanted[-1], abs=1e-12)


def test_transformers_and_our_own_class_open_the_folder(both):
    """A file that only the page can read, padding rows that travel, a tokenizer with other ids."""
    transformers = pytest.importorskip("transformers")
    js, _ = both
    folder, idx = str(js["folder"]), torch.arange(CONFIG["vocab_size"])[None]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ours = GPT.from_pretrained(folder)
    with torch.no_grad():
        assert torch.allclose(theirs(idx).logits, ours(idx)[0], atol=1e-4)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.encode(TEXT) == CharTokenizer.load(folder).encode(TEXT)
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert f"**{js['val_loss']:.3f} nats a character**" in (js["folder"] / "README.md").read_text()
