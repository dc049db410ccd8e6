"""`prepare` changes no weights and no losses, and the U-Net compiles once, without graph breaks."""

import copy
from collections.abc import Iterator

import pytest
import torch
from functorch.compile import make_boxed_func, min_cut_rematerialization_partition
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters
from torch._inductor.decomposition import select_decomp_table

from tests.support.small_model import SMALL, mean_loss, random_pairs
from training.config import OptimizerConfig
from training.model.architecture import build
from training.model.hardware.cost import on_meta
from training.model.zero123 import Zero123
from training.optimization.acceleration import ChannelsLastConv2d, allow_tensor_cores, prepare, uncompiled
from training.optimization.optimizer import adamw


def losses(model: Zero123, steps: int = 3) -> Iterator[float]:
    """Yield the losses of a few steps of gradient descent."""
    model.train()
    for number in range(steps):
        loss = mean_loss(model, random_pairs(4, 16), torch.Generator().manual_seed(number))
        loss.backward()
        with torch.no_grad():
            for parameter in model.unet.parameters():
                if parameter.grad is not None:
                    parameter -= 0.01 * parameter.grad
                    parameter.grad = None
        yield loss.item()


@pytest.fixture(scope="module")
def expected() -> list[float]:
    return list(losses(build(SMALL)))


def test_layout_and_checkpointing_change_neither_weights_nor_losses(model, expected):
    before = {name: weight.clone() for name, weight in model.unet.state_dict().items()}
    prepare(model.unet, channels_last=True, compile=False, checkpointing=True)
    assert model.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert model.unet.is_gradient_checkpointing
    after = model.unet.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert list(losses(model)) == pytest.approx(expected, rel=1e-5)
    prepare(model.unet, channels_last=False, compile=False, checkpointing=False)
    assert model.unet.conv_in.weight.is_contiguous() and not model.unet.is_gradient_checkpointing


def test_a_compiled_step_is_one_graph_that_is_built_once(model, expected):
    """The backend `eager` traces as torch.compile does, without building kernels, which takes minutes on a CPU."""
    torch._dynamo.reset()
    counters.clear()
    prepare(model.unet, compile=False)
    model.unet.compile(dynamic=False, fullgraph=True, backend="eager")  # fullgraph: a break is an error
    assert list(losses(model)) == pytest.approx(expected, rel=1e-5)
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    assert not any("_orig_mod" in name for name in model.unet.state_dict())
    prepare(model.unet, compile=False)
    assert model.unet._compiled_call_impl is None


@pytest.mark.slow  # half a minute of tracing
def test_compiled_backward_pass_keeps_channels_last(model, monkeypatch):
    """torch would copy tensors of another layout, a tenth of a step on a GPU. The graph is that of inductor."""
    laid_out: list[bool] = []

    def look(graph, inputs):
        for node in graph.graph.nodes:
            if node.target is torch.ops.aten.convolution_backward.default:
                tensors = [argument.meta["val"] for argument in node.args[:3]]  # gradient, input, weight
                laid_out.extend(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in tensors)
        return make_boxed_func(graph)

    def backward_of_a_step() -> list[bool]:
        torch._dynamo.reset()
        laid_out.clear()
        traced = aot_autograd(
            fw_compiler=lambda graph, _: make_boxed_func(graph),
            bw_compiler=look,
            decompositions=select_decomp_table(),
            partition_fn=min_cut_rematerialization_partition,
        )
        model.unet.compile(dynamic=False, fullgraph=True, backend=traced)
        mean_loss(model, random_pairs(2, 16), torch.Generator().manual_seed(0)).backward()
        return laid_out

    prepare(model.unet, channels_last=True, compile=False)
    convolutions = [module for module in model.unet.modules() if isinstance(module, torch.nn.Conv2d)]
    assert backward_of_a_step() == [True] * 3 * len(convolutions)
    model.unet.to(memory_format=torch.contiguous_format)  # as ZeRO lays weights out
    assert all(backward_of_a_step())
    monkeypatch.setattr(ChannelsLastConv2d, "forward", torch.nn.Conv2d.forward)
    assert not all(backward_of_a_step()), "the layout of weights and input alone is not enough"


def test_uncompiled_context_runs_the_unet_eagerly(model):
    prepare(model.unet)
    compiled = model.unet._compiled_call_impl
    with pytest.raises(KeyError), uncompiled(model.unet):
        assert model.unet._compiled_call_impl is None
        raise KeyError
    assert model.unet._compiled_call_impl is compiled is not None


@pytest.mark.slow
def test_compiled_kernels_give_the_same_losses(model, expected):
    torch._dynamo.reset()
    prepare(model.unet)
    assert list(losses(model)) == pytest.approx(expected, rel=1e-4)


def test_a_copy_of_a_compiled_unet_runs_uncompiled(model):
    """Copies are made for the moving average and for checkpoints."""
    prepare(model.unet)
    copied = copy.deepcopy(model.unet)
    assert copied._compiled_call_impl is None and model.unet._compiled_call_impl is not None


@pytest.fixture
def restored_number_formats() -> Iterator[None]:
    """Restore torch's process-wide number formats and cuDNN settings after a test."""
    cudnn, precision = torch.backends.cudnn, torch.get_float32_matmul_precision()
    allow_tf32, benchmark = cudnn.allow_tf32, cudnn.benchmark
    yield
    torch.set_float32_matmul_precision(precision)
    cudnn.allow_tf32, cudnn.benchmark = allow_tf32, benchmark


def test_allow_tensor_cores_sets_tf32_and_cudnn(restored_number_formats):
    torch.backends.cudnn.allow_tf32 = False
    allow_tensor_cores(autotune=False)
    assert torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "high" and not torch.backends.cudnn.benchmark
    allow_tensor_cores()
    assert torch.backends.cudnn.benchmark


def test_a_step_never_waits_for_its_device():
    """On the meta device, reading a value back, which on a GPU waits for the device, is an error."""
    model = on_meta(build(SMALL)).train()
    optimizer = adamw(model, OptimizerConfig(), fused=False)
    for _ in range(2):
        latents = torch.empty(2, 2, 12, 8, 8, device="meta")
        given = torch.empty(2, 16, device="meta"), torch.empty(2, 4, device="meta")
        losses_B, _ = model.latent_losses(*latents, *given)
        losses_B.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    with pytest.raises(RuntimeError, match="meta"):
        losses_B.mean().item()
