"""A pretend GPU: CPU tensors that say they are on `cuda`, and are refused where CUDA would refuse them.

    with PretendGPU() as gpu:
        network.to("cuda")
        network(batch.to("cuda")).backward()
    assert not gpu.waits

Values and gradients are those of the CPU. What a tensor says (`device`, `is_cuda`) and what operations take together is
decided by marks on storages: views share their mark, results of operations on marked tensors are marked. Every wait of
the host for the device is counted with the line of the package that asked for it. A copy from host to device waits too,
unless it is `non_blocking`: the memory of the host must not change under it.
It knows nothing of kernels, NCCL, memory or the numbers of a real GPU.
"""

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytorch_lightning as pl
import torch
import torch.utils.checkpoint
from pytorch_lightning.accelerators import Accelerator
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.utils import clip_grad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA = torch.device("cuda", 0)
PACKAGE = str(Path(__file__).parents[1] / "mindvis")
BETWEEN = ("_dynamo/eval_frame.py", "torch/_compile.py", "torch/overrides.py")  # torch's way into the modes
ops = torch.ops.aten
INDEXING = {ops.index.Tensor, ops.index_put_.default, ops.index_put.default, ops._index_put_impl_.default}
INDEXING |= {ops._unsafe_index.Tensor}
COPIES = {ops.copy_.default, ops._to_copy.default}
# operations whose result has a size, or is a number, that only the device knows
READS_BACK = {
    ops._local_scalar_dense.default: "item",
    ops.nonzero.default: "nonzero",
    ops.masked_select.default: "masked_select",
    ops._unique2.default: "unique",
    ops.unique_dim.default: "unique",
    ops.equal.default: "equal",
    ops.repeat_interleave.Tensor: "repeat_interleave",
}


class MixedDevices(RuntimeError):
    """An operation on tensors of two devices."""


class PretendGPU:
    """Context in which `cuda` is there. `waits` counts (section, what, where); `kernels` counts operations."""

    def __init__(self) -> None:
        self.waits: Counter[tuple[str, str, str]] = Counter()
        self.kernels: Counter[str] = Counter()
        self.section = ""
        self.copying = False  # results of operations are left unmarked
        self._marked: dict[int, StorageWeakRef] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "PretendGPU":
        for context in (*self._patches(), _Operations(self), _Calls(self)):
            self._stack.enter_context(context)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def within(self, section: str) -> Iterator[None]:
        """Count waits under the name of a section."""
        before, self.section = self.section, section
        try:
            yield
        finally:
            self.section = before

    def wait(self, what: str) -> None:
        self.waits[self.section, what, _line()] += 1

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor is on the device."""
        with torch._C.DisableTorchFunction():
            reference = self._marked.get(tensor.untyped_storage()._cdata)
        return reference is not None and not reference.expired()

    def mark(self, tensor: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():
            storage = tensor.untyped_storage()
            self._marked[storage._cdata] = StorageWeakRef(storage)
        return tensor

    def move(self, tensor: Tensor, kind: str, non_blocking: bool = False) -> Tensor:
        """The tensor on another device, with its gradient; itself where it is there."""
        if self.holds(tensor) == (kind == "cuda"):
            return tensor
        if kind == "cpu":
            self.wait("copy to host")
        elif not non_blocking:
            self.wait("copy to device")
        if tensor.requires_grad and torch.is_grad_enabled():
            return _Move.apply(tensor, self, kind)
        return self.copy(tensor, kind).requires_grad_(tensor.requires_grad)

    def copy(self, tensor: Tensor, kind: str) -> Tensor:
        """A copy without gradient."""
        before, self.copying = self.copying, True
        try:
            with torch._C.DisableTorchFunction():
                copied = tensor.detach().clone()
        finally:
            self.copying = before
        return self.mark(copied) if kind == "cuda" else copied

    def _patches(self) -> list:
        """What torch does outside of the reach of modes."""
        enabled, dtype, run = torch.is_autocast_enabled, torch.get_autocast_dtype, torch.autograd._engine_run_backward
        group = clip_grad._group_tensors_by_device_and_dtype
        of_optimizer = torch.optim.Optimizer._group_tensors_by_device_and_dtype

        class Autocast(torch.autocast):
            def __init__(self, device_type: str, *rest: Any, **options: Any):
                super().__init__("cpu", *rest, **options)

        def run_backward(*rest: Any, **options: Any) -> Any:
            with _Calls(self):  # a mode is off while it handles `backward`
                return run(*rest, **options)

        def named(groups: dict) -> dict:
            return {
                (CUDA if self.holds(rest[0][0][0]) else home, dtype): rest for (home, dtype), rest in groups.items()
            }

        facts = {"default": lambda x: {"shape": x.shape, "dtype": x.dtype}}  # not the device: read where modes are off
        return [
            patch.object(torch, "autocast", Autocast),
            patch.object(torch, "is_autocast_enabled", lambda *_: enabled("cpu")),
            patch.object(torch, "get_autocast_dtype", lambda *_: dtype("cpu")),
            patch.object(torch.autograd, "_engine_run_backward", run_backward),
            patch.object(
                clip_grad, "_group_tensors_by_device_and_dtype", lambda *rest, **given: named(group(*rest, **given))
            ),
            patch.object(
                torch.optim.Optimizer,
                "_group_tensors_by_device_and_dtype",
                staticmethod(lambda *rest, **given: named(of_optimizer(*rest, **given))),
            ),
            patch.dict(torch.utils.checkpoint._allowed_determinism_checks_to_fns, facts),
            patch.object(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
            patch.object(torch.cuda, "max_memory_allocated", lambda *_: 0),
            patch.object(torch.cuda, "get_device_name", lambda *_: "pretend GPU"),
        ]


class _Move(torch.autograd.Function):
    """A copy to another device, whose gradient is copied back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, gpu: PretendGPU, kind: str) -> Tensor:
        ctx.gpu, ctx.back = gpu, "cpu" if kind == "cuda" else "cuda"
        return gpu.copy(tensor, kind)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        return ctx.gpu.copy(gradient, ctx.back), None, None


class _Operations(TorchDispatchMode):
    """Refuses operations on two devices, counts waits, and marks results."""

    def __init__(self, gpu: PretendGPU):
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> Any:
        gpu, kwargs = self.gpu, kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        on_device = [x for x in tensors if gpu.holds(x)]
        if not on_device:
            return func(*args, **kwargs)
        on_host = [x for x in tensors if x.dim() > 0 and not gpu.holds(x)]
        if on_host:
            self._check_mixed(func, args, on_device, on_host)
        self._count(func, args)
        results = func(*args, **kwargs)
        to_host = func is ops.copy_.default and not gpu.holds(args[0])
        if func is not ops._local_scalar_dense.default and not to_host and not gpu.copying:
            for result in tree_leaves(results):
                if isinstance(result, Tensor):
                    gpu.mark(result)
        return results

    def _check_mixed(self, func: Callable, args: tuple, on_device: list[Tensor], on_host: list[Tensor]) -> None:
        """Only copies, and indices for a tensor of the device, may come from the host."""
        if func in COPIES:
            return
        if func in INDEXING and self.gpu.holds(args[0]):
            self.gpu.wait("index from host")
            return
        shapes = [[tuple(x.shape) for x in part] for part in (on_device, on_host)]
        raise MixedDevices(f"{func}: cuda {shapes[0]} with cpu {shapes[1]} in {_line()}")

    def _count(self, func: Callable, args: tuple) -> None:
        gpu = self.gpu
        gpu.kernels[str(func)] += 1
        if func in READS_BACK:
            gpu.wait(READS_BACK[func])
        indices = [x for x in tree_leaves(args[1]) if isinstance(x, Tensor)] if func in INDEXING else []
        if any(x.dtype in (torch.bool, torch.uint8) for x in indices):
            gpu.wait("boolean index")
        if func is ops.copy_.default and gpu.holds(args[0]) != gpu.holds(args[1]):
            from_device, non_blocking = gpu.holds(args[1]), len(args) > 2 and args[2]
            if from_device or (not non_blocking and args[1].dim() > 0):
                gpu.wait("copy to host" if from_device else "copy to device")


class _Calls(TorchFunctionMode):
    """Answers where a tensor is, moves it, and makes new ones where they are asked for."""

    def __init__(self, gpu: PretendGPU):
        super().__init__()
        self.gpu = gpu
        self.ways: dict[Any, Callable] = {
            Tensor.get_device: lambda x: 0 if gpu.holds(x) else -1,
            Tensor.cuda: lambda x, *_, **__: gpu.move(x, "cuda"),
            Tensor.cpu: lambda x, *_, **__: gpu.move(x, "cpu"),
            Tensor.to: self._to,
            Tensor.numpy: self._numpy,
            Tensor.__array__: lambda x, *rest, **options: self._numpy(x),
            Tensor.tolist: lambda x: self._host(x).tolist(),
        }
        self.properties = {
            Tensor.device: lambda x: CUDA if gpu.holds(x) else torch.device("cpu"),
            Tensor.is_cuda: gpu.holds,
            Tensor.is_cpu: lambda x: not gpu.holds(x),
        }

    def __torch_function__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        owner = getattr(func, "__self__", None)
        for descriptor, answer in self.properties.items():
            if owner is descriptor and not _is_meta(args[0]):
                return answer(args[0])
        if func in self.ways and not _is_meta(args[0]):
            return self.ways[func](*args, **kwargs)
        if _kind(kwargs.get("device")) in ("cpu", "cuda"):
            return self._make(func, args, kwargs)
        return func(*args, **kwargs)

    def _make(self, func: Callable, args: tuple, kwargs: dict) -> Any:
        """A function that names a device: a new tensor there."""
        gpu, kind = self.gpu, _kind(kwargs["device"])
        made = func(*args, **kwargs | {"device": "cpu"})
        if kind == "cpu" or not isinstance(made, Tensor) or gpu.holds(made):
            return made
        if func in (torch.tensor, torch.as_tensor):
            gpu.wait("copy to device")
            return gpu.copy(made, "cuda")
        return gpu.mark(made)

    def _to(self, tensor: Tensor, *rest: Any, **options: Any) -> Tensor:
        non_blocking, device = options.pop("non_blocking", False), options.pop("device", None)
        for value in rest:
            if isinstance(value, Tensor):
                device, options["dtype"] = CUDA if self.gpu.holds(value) else "cpu", value.dtype
            elif isinstance(value, torch.dtype):
                options["dtype"] = value
            elif isinstance(value, bool):
                non_blocking = non_blocking or value
            elif value is not None:
                device = value
        if _kind(device) in ("cpu", "cuda"):
            tensor = self.gpu.move(tensor, _kind(device), non_blocking)
        elif device is not None:
            options["device"] = device
        return Tensor.to(tensor, **options) if options else tensor

    def _numpy(self, tensor: Tensor, *, force: bool = False) -> Any:
        if self.gpu.holds(tensor) and not force:
            raise TypeError("can't convert cuda:0 device type tensor to numpy: use Tensor.cpu()")
        return self._host(tensor.detach() if force else tensor).numpy()

    def _host(self, tensor: Tensor) -> Tensor:
        return self.gpu.move(tensor, "cpu") if self.gpu.holds(tensor) else tensor


class PretendAccelerator(Accelerator):
    """One pretend GPU, for Lightning."""

    def setup_device(self, device: torch.device) -> None:
        """Nothing to choose."""

    def get_device_stats(self, device: Any) -> dict:
        return {}

    def teardown(self) -> None:
        """Nothing to clear."""

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [CUDA]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return "pretend"


class StepNames(pl.Callback):
    """Names the sections of a training: `step n`, and `between` for validation, figures and checkpoints."""

    def __init__(self, gpu: PretendGPU):
        self.gpu = gpu

    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        self.gpu.section = f"step {trainer.global_step + 1}"

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.is_last_batch:
            self.gpu.section = "between"

    def on_train_end(self, *_: object) -> None:
        self.gpu.section = ""


def pretend_trainer(gpu: PretendGPU) -> Callable[..., pl.Trainer]:
    """`pl.Trainer` for the pretend GPU, which names its steps."""
    real = pl.Trainer

    def make(**options: Any) -> pl.Trainer:
        options |= {"accelerator": PretendAccelerator(), "devices": 1, "strategy": SingleDeviceStrategy(device=CUDA)}
        options["callbacks"] = [StepNames(gpu), *options["callbacks"]]
        return real(**options)

    return make


def _is_meta(tensor: Tensor) -> bool:
    with torch._C.DisableTorchFunction():
        return tensor.is_meta


def _kind(device: Any) -> str | None:
    return None if device is None else torch.device(device).type


def _line() -> str:
    """The innermost line of the package, and of the library it called where that is Lightning's or torch's own."""
    frames = [
        f for f in reversed(traceback.extract_stack()) if f.filename != __file__ and not f.filename.endswith(BETWEEN)
    ]
    ours = next((f for f in frames if f.filename.startswith(PACKAGE)), None)
    theirs = next((f for f in frames if "site-packages" in f.filename), None)
    named = [f"{Path(f.filename).name}:{f.lineno} {f.line}" for f in (ours, theirs) if f is not None]
    return " <- ".join(named)
