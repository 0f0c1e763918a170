"""A CUDA device for machines without one, so that the device contract is tested everywhere.

    with emulated_cuda():
        encoder = load_encoder("tiny")  # says cuda:0, and computes on the CPU

Inside, torch says that there is one GPU. A tensor on it is a `CudaTensor`: a subclass that says `cuda:0` and holds its
numbers in an ordinary CPU tensor. Each operator (torch's dispatcher hands them over one by one) is checked first and
refused as CUDA would refuse it: operands on different devices, a generator of the CPU, integer matrix products, numpy
of a CUDA tensor, CUDA in a forked process, a stream that reads what another has not finished. A copy to the CPU that
nobody waited for holds NaN until somebody does. Then the operator runs on the CPU tensors.

It measures nothing, and does not see rounding, memory, bad indices, operators without a CUDA kernel, or a second GPU.
"""

import contextlib
import ctypes
import os
import threading
from pathlib import Path
from unittest import mock

import torch
import torch._dynamo  # before anything is replaced: it looks functions up when it is imported
import torchgen
from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

aten, CPU, CUDA = torch.ops.aten, torch.device("cpu"), torch.device("cuda:0")
COPIES = {aten._to_copy.default, aten.copy_.default}
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
MATRIX_PRODUCTS = {"mm", "bmm", "addmm", "addbmm", "baddbmm", "addmv", "mv", "dot", "vdot", "convolution"}
IN_FLOAT32 = {aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.convolution}  # of bfloat16, as on CUDA; and faster
DECLARED = Path(torchgen.__path__[0], "packaged/ATen/native/native_functions.yaml").read_text().split("\n- func: ")
MIXING = {"aten::" + one.partition("(")[0] for one in DECLARED if "device_check: NoCheck" in one}  # they take numbers
REFUSED: set[torch.dtype] = set()  # types that the device lacks: none as CUDA, float64 as MPS
_process = None  # the one that entered; CUDA does not survive a fork


class CudaTensor(Tensor):
    """A tensor that says cuda:0. `data_on_cpu` holds its numbers; `written`: which stream wrote it last, and when."""

    @staticmethod
    def __new__(cls, data_on_cpu: Tensor):
        geometry = {"layout": data_on_cpu.layout, "dispatch_layout": True}
        if data_on_cpu.layout == torch.strided:
            geometry = {"strides": data_on_cpu.stride(), "storage_offset": data_on_cpu.storage_offset()}
        geometry |= {"dtype": data_on_cpu.dtype, "device": CUDA}
        self = Tensor._make_wrapper_subclass(cls, data_on_cpu.size(), **geometry)
        self.data_on_cpu, self.written = data_on_cpu, current_stream().tick()
        return self

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        """One operator, as CUDA would do it or refuse it."""
        kwargs = kwargs or {}
        tensors = _tensors_in((*args, *kwargs.values()))
        on_gpu = [x for x in tensors if isinstance(x, cls)]
        asked = kwargs.get("device")
        answers_on_gpu = bool(on_gpu) if asked is None else torch.device(asked).type == "cuda"
        if not on_gpu and not answers_on_gpu:
            return operator(*args, **kwargs)
        if operator is torch.ops.prim.layout.default:
            return args[0].data_on_cpu.layout
        _refuse(operator, args, tensors, kwargs.get("generator") if answers_on_gpu else None)
        found = _on_cpu(operator, args, kwargs)
        if REFUSED and answers_on_gpu and any(x.dtype in REFUSED for x in _tensors_in([found])):
            raise TypeError(f"{operator.name()} makes {REFUSED} on a device that has none")
        _follow_shape(operator, args, kwargs, on_gpu)
        if operator._schema.is_mutable:
            for x in on_gpu:
                x.written = current_stream().tick()
        answers_on_gpu = isinstance(args[0], cls) if operator is aten.copy_.default else answers_on_gpu
        if operator in COPIES and not answers_on_gpu and (kwargs.get("non_blocking") or args[2:3] == (True,)):
            current_stream().late_copies.append([found, found.clone()])  # there when somebody has waited for the stream
            return found.fill_(torch.nan if found.is_floating_point() else 99)
        if not answers_on_gpu or isinstance(found, bool | int | float):  # the CPU waits for it
            current_stream().synchronize()
            return found
        given = {id(x.data_on_cpu): x for x in on_gpu}  # in-place operators and out= answer what they were given
        return _mapped(found, Tensor, lambda x: given[id(x)] if id(x) in given else cls(x))

    tolist = property(lambda self: self.detach().cpu().tolist)
    untyped_storage = property(lambda self: self.data_on_cpu.untyped_storage)  # by its address shared weights are found

    def __format__(self, spec: str) -> str:
        return format(self.item() if self.dim() == 0 else repr(self), spec)

    def numpy(self, *, force: bool = False):
        if not force:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        return self.detach().cpu().numpy()


def _on_cpu(operator, args, kwargs):
    """The operator on the CPU tensors behind its operands."""
    here = {"device": CPU, "pin_memory": False, "non_blocking": False}
    args, kwargs = _mapped([args, kwargs], CudaTensor, lambda x: x.data_on_cpu)
    kwargs = {name: here.get(name, value) for name, value in kwargs.items()}
    if operator.overloadpacket in IN_FLOAT32 and "out" not in kwargs and args[0].dtype == torch.bfloat16:
        return _mapped(operator(*_mapped(args, Tensor, Tensor.float), **kwargs), Tensor, Tensor.bfloat16)
    return operator(*args, **kwargs)


def _tensors_in(values) -> list[Tensor]:
    lists = (value if isinstance(value, list | tuple) else (value,) for value in values)
    return [x for some in lists for x in some if isinstance(x, Tensor)]


def _mapped(x, kind: type, change):  # operands and results are few and simple: torch's pytrees take three times as long
    if isinstance(x, dict):
        return {name: _mapped(part, kind, change) for name, part in x.items()}
    if isinstance(x, list | tuple):
        return type(x)([_mapped(part, kind, change) for part in x])
    return change(x) if isinstance(x, kind) else x


def _follow_shape(operator, args, kwargs, on_gpu: list[CudaTensor]) -> None:
    """Give the wrapper the shape that an operator such as `squeeze_` gave the tensor behind it."""
    if torch.Tag.inplace_view in operator.tags:
        torch._C._set_meta_in_tls_dispatch_include(True)
        with no_dispatch():
            operator(*args, **kwargs)
        torch._C._set_meta_in_tls_dispatch_include(False)
    assert all(x.shape == x.data_on_cpu.shape for x in on_gpu), f"the emulated device cannot let {operator} resize"


def _refuse(operator, args, tensors: list[Tensor], generator: torch.Generator | None) -> None:
    """Raise what CUDA would raise at this operator on these operands."""
    name = operator.name()
    indexes_gpu = operator in INDEXING and isinstance(args[0], CudaTensor)
    # the indices of a CUDA tensor may lie anywhere, and some operators take numbers that are CPU tensors
    checked = [x for x in (args[0], *args[2:3]) if isinstance(x, Tensor)] if indexes_gpu else tensors
    checked = [x for x in checked if x.is_cuda or x.dim() or name not in MIXING]
    base = name.removeprefix("aten::").split(".")[0]
    if os.getpid() != _process:
        raise RuntimeError("Cannot re-initialize CUDA in forked subprocess")
    if generator is not None and getattr(_generators.get(generator._cdata), "device", CPU) != CUDA:
        raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu' ({name})")
    if base in MATRIX_PRODUCTS and not all(x.is_floating_point() or x.is_complex() for x in tensors):
        raise RuntimeError(f'"{base}_cuda" not implemented for integers')
    if any(not current_stream().has_seen(*x.written) for x in tensors if x.is_cuda):
        raise RuntimeError(f"{name}: a stream reads what another has not finished; it has to wait for that one")
    mixed = len({x.is_cuda for x in checked}) > 1 and operator not in COPIES
    if mixed or (operator in INDEXING and not indexes_gpu):
        shapes = ", ".join(f"{x.device} {tuple(x.shape)}" for x in tensors)
        raise RuntimeError(f"Expected all tensors to be on the same device, found cuda:0 and cpu ({name}: {shapes})")


class _OnCuda(TorchDispatchMode):  # for `torch.zeros(2, device="cuda")`, uploads, and operators that mix devices
    def __torch_dispatch__(self, *call):
        return CudaTensor.__torch_dispatch__(*call)


class Stream:
    """A stream of CUDA, or an event. `seen`, `seen_by_cpu`: how many operators of each stream it, or the CPU, waited
    for. `late_copies`: those to the CPU that are there once somebody waited for it."""

    device, seen_by_cpu, is_capturing = CUDA, {}, staticmethod(lambda: False)

    def __init__(self, *_, **__):
        self.seen, self.late_copies = {id(self): 0}, []

    def __enter__(self):
        self.outer, _thread.stream = current_stream(), self

    def __exit__(self, *_):
        _thread.stream = self.outer

    def tick(self) -> tuple[int, int]:
        """Count an operator; what it wrote was written by this stream, then."""
        self.seen[id(self)] += 1
        return id(self), self.seen[id(self)]

    def has_seen(self, stream: int, when: int) -> bool:
        return max(self.seen.get(stream, 0), Stream.seen_by_cpu.get(stream, 0)) >= when

    def seen_by_either(self, other: dict[int, int]) -> dict[int, int]:
        return {stream: max(self.seen.get(stream, 0), other.get(stream, 0)) for stream in self.seen | other}

    def record_event(self, event: "Stream | None" = None) -> "Stream":
        event = event or Stream()
        event.seen, event.late_copies = dict(self.seen), list(self.late_copies)
        return event

    def wait_stream(self, other: "Stream") -> None:
        self.seen = self.seen_by_either(other.seen)

    def synchronize(self) -> None:
        Stream.seen_by_cpu = self.seen_by_either(Stream.seen_by_cpu)
        for copy in filter(None, self.late_copies):
            copy[0].copy_(copy[1])
            copy.clear()  # events know it, too
        self.late_copies = []


_thread, _usual_stream = threading.local(), Stream()


def current_stream(device=None) -> Stream:  # of this thread; all threads begin with the same one
    return getattr(_thread, "stream", _usual_stream)


class Generator(torch.Generator):
    """A random generator that says which device it is for; operators get to see its address alone."""

    device = property(lambda self: self.place)

    def __new__(cls, device="cpu"):
        self = super().__new__(cls, "cpu")
        self.place = CUDA if torch.device(device).type == "cuda" else CPU
        return _generators.setdefault(self._cdata, self)


_generators: dict[int, Generator] = {}
_torch_backward = torch.autograd._engine_run_backward


@torch.no_grad()
def _backward(roots, gradients, keep_graph, create_graph, inputs, allow_unreachable, accumulate_grad):
    """Autograd's engine, node by node in Python: torch's own would ask CUDA for its streams."""
    if not isinstance(roots[0], CudaTensor):
        return _torch_backward(roots, gradients, keep_graph, create_graph, inputs, allow_unreachable, accumulate_grad)
    found, waiting = {}, set()

    def give(node, place: int, gradient: Tensor | None) -> None:
        if node is not None and gradient is not None:
            wanted, arrived = node._input_metadata[place], found.setdefault(node, [None] * len(node._input_metadata))
            gradient = gradient.sum_to_size(wanted.shape).to(wanted.dtype)
            arrived[place] = gradient if arrived[place] is None else arrived[place] + gradient
            waiting.add(node)

    for root, gradient in zip(roots, gradients, strict=True):
        give(*get_gradient_edge(root)[:2], gradient)
    while inner := [node for node in waiting if not hasattr(node, "variable")]:  # leaves hold a variable
        waiting.remove(node := max(inner, key=lambda node: node._sequence_nr()))
        passed = node(*found[node])
        for edge, gradient in zip(node.next_functions, passed if isinstance(passed, tuple) else [passed], strict=True):
            give(*edge, gradient)
    for node in waiting if accumulate_grad else ():
        leaf, gradient = node.variable, found[node][0]
        leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient
    asked = [found[e.node][e.output_nr] if e.node in found else None for e in map(get_gradient_edge, inputs)]
    if not allow_unreachable and any(gradient is None for gradient in asked):
        raise RuntimeError("One of the differentiated Tensors appears to not have been used in the graph")
    return tuple(asked)


def _register_device_guard() -> None:
    """Let torch set its own inert guard for CUDA, which it does where the present one counts no device."""
    c10 = ctypes.CDLL(str(Path(torch.__file__).parent / "lib/libc10.so"))
    registry = (ctypes.c_void_p * 2).in_dll(c10, "_ZN3c104impl26device_guard_impl_registryE")
    if registry[1] is None:
        torch.ones((), requires_grad=True).backward()  # autograd counts devices once: before this one is there
        answer_zero = ctypes.CFUNCTYPE(ctypes.c_byte, ctypes.c_void_p)(lambda guard: 0)  # such as one that answers 0
        methods = (ctypes.c_void_p * 64)(*[ctypes.cast(answer_zero, ctypes.c_void_p)] * 64)
        guard = ctypes.c_void_p(ctypes.addressof(methods))
        registry[1] = ctypes.addressof(guard)
        torch._C._ensureCUDADeviceGuardSet()


ANSWERS = {
    "cuda.is_available": True, "cuda.is_initialized": True, "cuda.device_count": 1, "cuda.current_device": 0,
    "cuda.is_bf16_supported": True, "cuda.mem_get_info": (8 << 30, 16 << 30), "cuda.get_device_name": "emulated",
    "cuda._lazy_init": None, "cuda.set_device": None, "cuda.empty_cache": None, "cuda.manual_seed_all": None,
    "accelerator.is_available": True, "accelerator.current_accelerator": CUDA, "Tensor.record_stream": None,
    "accelerator.current_device_index": 0, "accelerator.set_device_index": None,
}  # fmt: skip


@contextlib.contextmanager
def emulated_cuda():
    """While it lasts, this process has one GPU."""
    global _process
    _process = os.getpid()
    _register_device_guard()

    def run_in_mode(thread, run=threading.Thread.run):  # mode and switch belong to the thread that set them
        torch._C._set_only_lift_cpu_tensors(True)
        with _OnCuda():
            run(thread)

    replaced = {name: lambda *_, answer=answer, **__: answer for name, answer in ANSWERS.items()} | {
        "cuda.Stream": Stream, "cuda.Event": Stream, "cuda.stream": lambda stream: stream, "Generator": Generator,
        "cuda.current_stream": current_stream, "accelerator.current_stream": current_stream,
        "cuda.synchronize": lambda *_: current_stream().synchronize(), "autograd._engine_run_backward": _backward,
        "Tensor.cuda": lambda x, *_, **__: x.to(CUDA), "Tensor.pin_memory": lambda x, *_: x,
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        for name, value in replaced.items():
            stack.enter_context(mock.patch(f"torch.{name}", value))
        stack.enter_context(mock.patch("threading.Thread.run", run_in_mode))
        for switch in (torch.__future__.set_swap_module_params_on_conversion, torch._C._set_only_lift_cpu_tensors):
            switch(True)
            stack.callback(switch, False)
        stack.enter_context(_OnCuda())
        yield
