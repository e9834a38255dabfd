"""Training a tuned lens: its objective, what it reaches, and runs that are stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F

import classlens
from classlens import Lens, tune
from classlens.data.open_dataset import open_dataset
from classlens.engine.progress import Progress
from classlens.lens.tuned_lens import TunedLens
from classlens.models.transforms import paper_transform
from tests import zoo
from tests.data.pictures import folder
from tests.lens.test_readouts import _made as two_readouts
from tests.models.tiny_timm import SIZE_32, SMALL
from tests.refusals import refused
from tests.tasks.tiny import DATA_CLASSES, NAMES, lens_of, states_of

IMAGES, HELD = 40, 10
GIVEN: dict[str, Any] = {"workers": 0, "held_out": HELD / IMAGES, "batch_size": 64, "seed": 3}
ORDER = np.random.default_rng(3).permutation(IMAGES)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return folder(tmp_path_factory.mktemp("data") / "images", IMAGES, DATA_CLASSES)


def divergence(wanted: Tensor, found: Tensor) -> Tensor:
    """KL of each row, written out."""
    p, q = wanted.softmax(-1), found.softmax(-1)
    return (p * (p.log() - q.log())).sum(-1)


def read(model: Any, x: Tensor) -> Tensor:
    """The end of a timm model on the tokens after a block: of a token, or of those that are pooled."""
    logits: Tensor = model.head(model.fc_norm(model.norm(x)))
    return logits


def objective(model: Any, x: Tensor, last: Tensor, weight: Tensor, bias: Tensor, which: str) -> Tensor:
    """Of one block, for a head on [CLS]."""
    moved = x @ weight.to(x.dtype).T + bias.to(x.dtype)
    pooled = divergence(read(model, last[:, 0]), read(model, moved[:, 0])).mean()
    if which == "pooled":
        return pooled
    return (pooled + divergence(read(model, last), read(model, moved)).mean()) / 2


def stepped(lens: Lens, data: str, which: str, steps: int, *, control: bool = False) -> list[dict[str, Any]]:
    """Full batches of Adam with its rates on a cosine, and for each block the best so far on held-out images."""
    model = lens.view.module
    states = states_of(lens, data)["resid_post"]
    train, held = ORDER[HELD:], ORDER[:HELD]
    found = []
    for x in states:
        weight, bias = torch.eye(24).requires_grad_(), torch.zeros(24).requires_grad_()
        adam = torch.optim.Adam([weight, bias], lr=1e-3)
        kept = {"weight": torch.eye(24), "bias": torch.zeros(24), "epoch": 0}

        def measured(x: Tensor = x, weight: Tensor = weight, bias: Tensor = bias) -> float:
            target = states[-1][held]
            target = target.roll(1, dims=0) if control else target
            with torch.no_grad():
                return float(objective(model, x[held], target, weight, bias, which))

        least = measured()
        for step in range(steps):
            order = np.random.default_rng([3, step]).permutation(train)
            target = states[-1][order]
            target = target.roll(1, dims=0) if control else target
            gradients = torch.autograd.grad(objective(model, x[order], target, weight, bias, which), [weight, bias])
            for parameter, gradient in zip((weight, bias), gradients, strict=True):
                parameter.grad = gradient
            adam.param_groups[0]["lr"] = 1e-3 * (1 + np.cos(np.pi * step / steps)) / 2
            if x is not states[-1] or control:
                adam.step()
            if measured() < least * (1 - 1e-4):
                least = measured()
                kept = {"weight": weight.detach().clone(), "bias": bias.detach().clone(), "epoch": step + 1}
        found.append(kept)
    return found


@pytest.mark.parametrize("control", [False, True])
@pytest.mark.parametrize("which", ["all", "pooled"])
def test_steps_are_adam_s_on_the_divergence(data: str, tmp_path: Path, which: Any, control: bool) -> None:
    lens = lens_of()
    found = tune(lens, data, tmp_path / "lens.safetensors", tokens=which, epochs=3, control=control, **GIVEN)
    assert (found.epochs, found.images, found.held_out) == (3, IMAGES - HELD, HELD)
    expected = stepped(lens, data, which, 3, control=control)
    for block, kept in enumerate(expected):
        assert found.blocks[block]["epoch"] == kept["epoch"]
        # Three steps of at most 1e-3, whose float32 gradients differ in the last digits.
        torch.testing.assert_close(found.tuned_lens.weight[block], kept["weight"], rtol=0, atol=2e-6)
        torch.testing.assert_close(found.tuned_lens.bias[block], kept["bias"], rtol=0, atol=2e-6)
    assert found.blocks[0]["epoch"] == 3 or control
    assert (found.blocks[-1]["epoch"] == 0) or control


@pytest.fixture(scope="module")
def trained(data: str, tmp_path_factory: pytest.TempPathFactory) -> classlens.TuneResult:
    out = tmp_path_factory.mktemp("lens") / "lens.safetensors"
    return tune(lens_of(), data, out, epochs=25, **{**GIVEN, "batch_size": 10})


def pooled_divergences(lens: Lens, data: str, tuned_lens: TunedLens | None) -> list[float]:
    """Of each block, from the model's output to what its head reads of [CLS], on held-out images."""
    states = states_of(lens, data)["resid_post"]
    found = []
    with torch.no_grad():
        for block, x in enumerate(states):
            own = x[ORDER[:HELD], 0]
            if tuned_lens is not None:
                own = own @ tuned_lens.weight[block].double().T + tuned_lens.bias[block].double()
            model = lens.view.module
            found.append(float(divergence(read(model, states[-1][ORDER[:HELD], 0]), read(model, own)).mean()))
    return found


def test_it_comes_nearer_to_the_output_at_every_block_but_the_last(trained: classlens.TuneResult, data: str) -> None:
    lens = lens_of()
    plain, tuned = pooled_divergences(lens, data, None), pooled_divergences(lens, data, trained.tuned_lens)
    for block, row in enumerate(trained.blocks):
        assert row["block"] == block
        assert row["plain"] == pytest.approx(plain[block], abs=1e-9)
        assert row["tuned"] == pytest.approx(tuned[block], abs=1e-9)
    assert all(row["tuned"] < 0.9 * row["plain"] for row in trained.blocks[:-1])
    assert trained.blocks[-1]["plain"] == pytest.approx(0, abs=1e-12)
    assert trained.blocks[-1]["epoch"] == 0
    assert torch.equal(trained.tuned_lens.weight[-1], torch.eye(24))
    assert torch.equal(trained.tuned_lens.bias[-1], torch.zeros(24))
    assert not torch.equal(trained.tuned_lens.weight[0], torch.eye(24))


@pytest.mark.parametrize("model", ["cls", "cls_layer_scale", "avg_includes_prefix"])
def test_the_last_block_stays_the_identity_in_float32(data: str, tmp_path: Path, model: str) -> None:
    """Rounding of a divergence of zero is no progress, whichever its sign."""
    found = tune(
        lens_of(model, torch.float32), data, tmp_path / "lens.safetensors", **{**GIVEN, "batch_size": 10, "epochs": 8}
    )
    assert found.blocks[-1]["epoch"] == 0
    assert torch.equal(found.tuned_lens.weight[-1], torch.eye(24))
    assert torch.equal(found.tuned_lens.bias[-1], torch.zeros(24))
    assert found.blocks[0]["tuned"] < found.blocks[0]["plain"]


def test_one_answer_for_all_images(trained: classlens.TuneResult, data: str) -> None:
    lens = lens_of()
    last = states_of(lens, data)["resid_post"][-1][:, 0]
    with torch.no_grad():
        outputs = read(lens.view.module, last).softmax(-1)
    mean = outputs[ORDER[HELD:]].mean(dim=0)
    total = 0.0
    for image in ORDER[:HELD].tolist():
        total += sum(float(p) * float(np.log(float(p) / float(q))) for p, q in zip(outputs[image], mean, strict=True))
    assert trained.constant == pytest.approx(total / HELD, rel=1e-9)


def test_matching_other_images_outputs_tells_nothing_of_one_s_own(tmp_path: Path) -> None:
    """All that can be learned is one answer for all; the last block, which says all there is to say, loses it."""
    spec = folder(tmp_path / "images", 120, DATA_CLASSES)
    given = {**GIVEN, "batch_size": 30, "learning_rate": 1e-2, "epochs": 80, "patience": 80}
    own = tune(lens_of(), spec, tmp_path / "own.safetensors", **given)
    control = tune(lens_of(), spec, tmp_path / "control.safetensors", control=True, **given)
    assert control.constant == own.constant
    for row, other in zip(control.blocks, own.blocks, strict=True):
        assert row["plain"] == other["plain"]
        # What is left of the identity after so many steps still knows a little of the image.
        assert row["tuned"] > 0.75 * control.constant
        assert row["tuned"] > 4 * other["tuned"]
        assert row["epoch"] > 0
    assert control.blocks[-1]["tuned"] > control.blocks[-1]["plain"] + 0.1


def test_an_image_alone_has_no_other_to_match(data: str, tmp_path: Path) -> None:
    """The third of three images in batches of two: one step of Adam on the first two, and no more."""
    lens, order = lens_of(), np.random.default_rng(3).permutation(5)
    given = {**GIVEN, "batch_size": 2, "held_out": 0.4, "limit": 5, "epochs": 1, "control": True}
    found = tune(lens, data, tmp_path / "lens.safetensors", **given)
    taken = [open_dataset(data).names.index(name) for name in open_dataset(data, limit=5).names]
    states = [x[taken] for x in states_of(lens, data)["resid_post"]]
    first = np.random.default_rng([3, 0]).permutation(order[2:])[:2]
    for block, x in enumerate(states[:2]):
        weight, bias = torch.eye(24).requires_grad_(), torch.zeros(24).requires_grad_()
        loss = objective(lens.view.module, x[first], states[-1][first].roll(1, dims=0), weight, bias, "all")
        loss.backward(inputs=[weight, bias])
        torch.optim.Adam([weight, bias], lr=1e-3).step()
        assert found.blocks[block]["epoch"] == 1
        torch.testing.assert_close(found.tuned_lens.weight[block], weight.detach(), rtol=0, atol=2e-6)
    given["batch_size"] = 1
    refused(lambda: tune(lens, data, tmp_path / "alone.safetensors", **given), "larger batch size")


def test_it_ends_when_nothing_gets_better(data: str, tmp_path: Path) -> None:
    """Steps of 10 are too long for anything."""
    found = tune(lens_of(), data, tmp_path / "lens.safetensors", learning_rate=10.0, epochs=30, patience=2, **GIVEN)
    assert found.epochs < 30
    assert found.epochs - max(row["epoch"] for row in found.blocks) == 2
    assert all(row["tuned"] <= row["plain"] for row in found.blocks)


class Stopped(Exception):
    pass


def assert_same_lens(one: Path, other: Path) -> None:
    with safe_open(one, framework="pt") as first, safe_open(other, framework="pt") as second:
        assert torch.equal(first.get_tensor("weight"), second.get_tensor("weight"))
        assert torch.equal(first.get_tensor("bias"), second.get_tensor("bias"))
        notes = []
        for about in (dict(first.metadata()), dict(second.metadata())):
            note = json.loads(about.pop("result"))
            del note["seconds"]
            notes.append((about, note))
        assert notes[0] == notes[1]


SHORT: dict[str, Any] = {**GIVEN, "batch_size": 10, "epochs": 4}


@pytest.fixture(scope="module")
def short(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lens") / "lens.safetensors"
    tune(lens_of(), data, out, **SHORT)
    return out


@pytest.mark.parametrize("images", [10, 3 * IMAGES + 20])
def test_stopped_and_gone_on_with(data: str, short: Path, tmp_path: Path, images: int) -> None:
    """In the middle of the first epoch, and of the last."""
    out = tmp_path / "new" / "lens.safetensors"

    def stop(now: Progress) -> None:
        if now.doing != "running the model" and now.done >= images:
            raise Stopped

    with pytest.raises(Stopped):
        tune(lens_of(), data, out, **SHORT, report=stop)
    assert not out.exists()
    seen: list[Progress] = []
    found = tune(lens_of(), data, out, **SHORT, report=seen.append)
    assert found.epochs == 4
    running = [now for now in seen if now.doing == "running the model"]
    assert [now.done for now in running] == sorted(now.done for now in running)
    assert running[-1].done == running[-1].images == IMAGES
    assert seen[: len(running)] == running
    assert seen[len(running)].doing == ("epoch 1 of at most 4" if images == 10 else "epoch 4 of at most 4")
    assert seen[-1].done == seen[-1].images == 4 * IMAGES
    # The rate is that of what this run has done.
    assert {now.before for now in seen[len(running) :]} == {0 if images == 10 else 3 * IMAGES}
    assert [path.name for path in out.parent.iterdir()] == ["lens.safetensors"]
    assert_same_lens(out, short)


def test_stopped_within_an_epoch(data: str, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice in one epoch: the second run begins with the batches that the first one did not save."""
    monkeypatch.setattr("classlens.tasks.tuned_lens.tune._SAVE_SECONDS", 0.0)
    monkeypatch.setattr("classlens.tasks.tuned_lens.tune._SAVE_SHARE", float("inf"))
    out, begun = tmp_path / "lens.safetensors", []
    for images in (20, 30):

        def stop(now: Progress, images: int = images) -> None:
            if now.doing != "running the model" and now.done > IMAGES:
                begun.append(now.done - IMAGES)
                if now.done >= IMAGES + images:
                    raise Stopped

        with pytest.raises(Stopped):
            tune(lens_of(), data, out, **SHORT, report=stop)
    assert begun == [10, 20, 20, 30]
    tune(lens_of(), data, out, **SHORT)
    assert_same_lens(out, short)


def test_a_finished_one_is_read_again(data: str, short: Path) -> None:
    before = short.stat().st_mtime_ns

    def never(_: Progress) -> None:
        raise AssertionError("nothing is left to do")

    found = tune(lens_of(), data, short, **SHORT, report=never)
    assert short.stat().st_mtime_ns == before
    with safe_open(short, framework="pt") as opened:
        assert torch.equal(found.tuned_lens.weight, opened.get_tensor("weight"))
        note = json.loads(opened.metadata()["result"])
    assert (found.blocks, found.constant, found.epochs) == (note["blocks"], note["constant"], 4)
    assert (found.images, found.held_out, found.seconds) == (IMAGES - HELD, HELD, note["seconds"])


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": "pooled"},
        {"epochs": 5},
        {"patience": 3},
        {"learning_rate": 1e-2},
        {"held_out": 0.5},
        {"control": True},
        {"seed": 4},
        {"limit": 30},
    ],
)
def test_other_settings_do_not_go_on(data: str, short: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    given = {**SHORT, **changes}
    key, value = next(iter(changes.items()))
    says = f"with {'images' if key == 'limit' else key.replace('_', ' ')} "
    refused(lambda: tune(lens_of(), data, short, **given), says, f", not {value!r}: give the same")
    out = tmp_path / "lens.safetensors"

    def stop(now: Progress) -> None:
        if now.done > IMAGES:
            raise Stopped

    with pytest.raises(Stopped):
        tune(lens_of(), data, out, **SHORT, report=stop)
    refused(lambda: tune(lens_of(), data, out, **given), "lens.safetensors.training", says)


def test_states_in_memory_and_made_anew(data: str, short: Path, tmp_path: Path) -> None:
    found = tune(lens_of(), data, tmp_path / "lens.safetensors", **SHORT, ram=1)
    with safe_open(short, framework="pt") as opened:
        # Twelve steps of at most 1e-3 in float32, of images in other batches.
        torch.testing.assert_close(found.tuned_lens.weight, opened.get_tensor("weight"), rtol=0, atol=1e-5)


def held_model() -> Any:
    model: Any = zoo.build("cls")
    model.train()
    model.blocks[1].eval()
    model.blocks[2].requires_grad_(False)
    model.blocks[0].register_forward_hook(lambda *_: None)
    model.head.bias.grad = torch.ones_like(model.head.bias)
    return model


def test_the_model_is_left_as_it_was(data: str, tmp_path: Path) -> None:
    model = held_model()
    lens = classlens.load(model, class_names=list(NAMES), transform=paper_transform((16, 16)))
    before = zoo.snapshot(model)
    tune(lens, data, tmp_path / "lens.safetensors", **{**SHORT, "epochs": 1})
    assert zoo.snapshot(model) == before
    assert torch.is_grad_enabled()

    def stop(_: Progress) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        tune(lens, data, tmp_path / "other.safetensors", **SHORT, report=stop)
    assert zoo.snapshot(model) == before


def timm_lens(name: str, options: dict[str, Any]) -> Lens:
    module = timm.create_model(name, **options)
    zoo.randomize(module)
    return classlens.load(module.eval(), transform=paper_transform((32, 32)))


def avg() -> Lens:
    return classlens.load(zoo.build("avg_excludes_cls"), transform=paper_transform((16, 16)))


def of_two_readouts(kind: str) -> Lens:
    lens: Lens = two_readouts(kind)[1]
    lens.preprocessing = lens_of().preprocessing
    return lens


MODELS: dict[str, Callable[[], Lens]] = {
    "avg": avg,
    "distilled": lambda: timm_lens("deit_tiny_distilled_patch16_224", SIZE_32),
    "attention pooling": lambda: timm_lens("vit_base_patch16_siglip_224", {**SMALL, "img_size": 32, "num_classes": 5}),
    "two heads": lambda: of_two_readouts("two heads"),
    "split head": lambda: of_two_readouts("split head"),
}


@pytest.mark.parametrize("which", ["all", "pooled"])
@pytest.mark.parametrize("model", MODELS)
def test_every_kind_of_head(data: str, tmp_path: Path, model: str, which: Any) -> None:
    lens = MODELS[model]()
    before = zoo.snapshot(lens.view.module)
    found = tune(lens, data, tmp_path / "lens.safetensors", tokens=which, **{**SHORT, "epochs": 2})
    assert zoo.snapshot(lens.view.module) == before
    assert found.blocks[-1]["epoch"] == 0
    assert found.blocks[-1]["plain"] < 1e-5
    assert found.blocks[0]["epoch"] > 0
    # The divergence of the model's output from what its own end makes of the first block's tokens, behind the
    # translator and not: the block's output is put in the place of the last one's.
    dataset = open_dataset(data)
    pixels = torch.stack([lens.preprocessing(dataset.picture(int(image)), "") for image in ORDER[:HELD]])
    pixels = pixels.to(lens.view.dtype)
    module: Any = lens.view.module
    seen: list[Tensor] = []
    hook = module.blocks[0].register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.no_grad():
        own = module(pixels)
        hook.remove()
        weight, bias = (value[0].to(seen[0].dtype) for value in (found.tuned_lens.weight, found.tuned_lens.bias))
        for key, x in (("plain", seen[0]), ("tuned", F.linear(seen[0], weight, bias))):
            hook = module.blocks[-1].register_forward_hook(lambda *args, x=x: x)
            expected = float(divergence(own, module(pixels)).mean())
            hook.remove()
            assert found.blocks[0][key] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"tokens": "cls"}, ("tokens 'cls'", "all, pooled")),
        ({"epochs": 0}, ("epochs 0 cannot be used",)),
        ({"patience": 0}, ("patience 0 cannot be used",)),
        ({"learning_rate": 0.0}, ("learning_rate 0.0",)),
        ({"learning_rate": float("nan")}, ("learning_rate nan",)),
        ({"held_out": 1.0}, ("held_out 1.0",)),
        ({"held_out": 0.0}, ("held_out 0.0",)),
        ({"ram": "lots"}, ("ram 'lots'",)),
        ({"limit": 1}, ("1 images: give at least 2",)),
        ({"out": "lens.pt"}, ("'lens.pt'", "ending in .safetensors")),
        ({"data": "folder:/nowhere"}, ("is not a folder",)),
        ({"batch_size": 100}, ("batch_size 100",)),
    ],
)
def test_what_cannot_be_asked_for(data: str, tmp_path: Path, changes: dict[str, Any], names: tuple[str, ...]) -> None:
    given: dict[str, Any] = {"data": data, "out": tmp_path / "lens.safetensors", **GIVEN, **changes}
    refused(lambda: tune(lens_of(), **given), *names)
    assert list(tmp_path.iterdir()) == []


def test_what_lies_there_already(data: str, tmp_path: Path, short: Path) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    refused(lambda: tune(lens_of(), data, tmp_path / "folder.safetensors", **SHORT), "ending in .safetensors")
    (tmp_path / "text.safetensors").write_text("dear")
    refused(lambda: tune(lens_of(), data, tmp_path / "text.safetensors", **SHORT), "cannot be read")
    (tmp_path / "a.safetensors.training").write_text("dear")
    refused(lambda: tune(lens_of(), data, tmp_path / "a.safetensors", **SHORT), "cannot be resumed", "remove it")
    other = classlens.load(zoo.build("cls", seed=7), class_names=list(NAMES), transform=paper_transform((16, 16)))
    refused(lambda: tune(other, data, short, **SHORT), "other weights")
    by_hand = tmp_path / "by_hand.safetensors"
    TunedLens.identity(lens_of().view).save(by_hand, lens_of().view, {})
    refused(lambda: tune(lens_of(), data, by_hand, **SHORT), "no record of its training")


def test_a_lens_that_is_tuned_already(data: str, short: Path, tmp_path: Path) -> None:
    lens = lens_of().with_tuned_lens(short)
    refused(lambda: tune(lens, data, tmp_path / "lens.safetensors", **SHORT), "has a tuned lens already")


def test_images_that_cannot_be_read(tmp_path: Path) -> None:
    spec = folder(tmp_path / "images", IMAGES, DATA_CLASSES)
    names = open_dataset(spec).names
    for image in (ORDER[0], ORDER[HELD]):
        (tmp_path / "images" / names[image]).write_bytes(b"no image")
    refused(lambda: tune(lens_of(), spec, tmp_path / "no.safetensors", **SHORT), "--skip-bad")
    some = [folder(tmp_path / name, IMAGES, DATA_CLASSES) for name in ("held", "train")]
    for spec_of, places, says in zip(some, (ORDER[:HELD], ORDER[HELD:]), ("held-out", "train on"), strict=True):
        for image in places:
            (Path(spec_of.removeprefix("folder:")) / names[image]).write_bytes(b"no image")
        none = partial(tune, lens_of(), spec_of, tmp_path / "none.safetensors", **SHORT, skip_bad=True)
        refused(none, says)
    for ram in ("8GB", 1):
        found = tune(lens_of(), spec, tmp_path / f"{ram}.safetensors", **SHORT, ram=ram, skip_bad=True)
        assert all(np.isfinite(row["tuned"]) for row in found.blocks)
        assert found.blocks[0]["epoch"] > 0


def test_two_writers_and_what_a_killed_one_left(data: str, tmp_path: Path) -> None:
    out = tmp_path / "lens.safetensors"
    left = tmp_path / ".lens.safetensors.training.abc.partial"
    left.write_bytes(b"half")
    other = tmp_path / ".another.safetensors.abc.partial"
    other.write_bytes(b"another run's")

    def meanwhile(_: Progress) -> None:
        assert not left.exists()
        refused(lambda: tune(lens_of(), data, out, **SHORT), "lens.safetensors", "another process")

    tune(lens_of(), data, out, **SHORT, report=meanwhile)
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, out.name]
