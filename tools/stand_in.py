"""A stand-in for a GPU, on machines that have none: a device of its own, whose tensors lie on the CPU unseen.

What CUDA refuses, it refuses: tensors of two devices in one operation, a random generator of the CPU, NumPy's view of
a tensor. Everything else is computed on the CPU, so a chapter gives the numbers there that it gives without a GPU.
``register()`` makes the device, ``torch.device("standin")``; after ``adopt()`` mmgan_lib trains on it.

It rests on PyTorch's entry for devices written in Python (``torch.utils.backend_registration``), which is young.
"""

from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.modules import rnn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "standin"
COPIES = {"aten::_to_copy", "aten::copy_"}  # the operations that lead from one device to the other
LOOKUPS = {"aten::index", "aten::index_put_", "aten::_index_put_impl_"}  # their indices may lie on the CPU
_registered: list[torch.library.Library] = []


class StandInTensor(Tensor):
    """A tensor of the stand-in; ``hidden`` is the CPU tensor that it hides."""

    @staticmethod
    def __new__(cls, hidden: Tensor) -> "StandInTensor":
        """A tensor that tells everything but the numbers."""
        layout = {"strides": hidden.stride(), "storage_offset": hidden.storage_offset(), "dtype": hidden.dtype}
        return Tensor._make_wrapper_subclass(cls, hidden.size(), device=torch.device(NAME, 0), **layout)

    def __init__(self, hidden: Tensor) -> None:
        self.hidden = hidden

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return compute(operation, args, kwargs or {})

    @property
    def data(self) -> Tensor:
        """As of any tensor; where it is set, the hidden tensor changes with it."""
        return Tensor.data.__get__(self)

    @data.setter
    def data(self, value: "StandInTensor") -> None:
        Tensor.data.__set__(self, value)
        self.hidden = value.hidden

    def numpy(self, *, force: bool = False) -> Any:
        """Raises TypeError, as on a GPU, unless a copy is asked for."""
        if not force:
            raise TypeError(f"can't convert {NAME} device type tensor to numpy. Use Tensor.cpu() first.")
        return self.hidden.detach().numpy()

    def tolist(self) -> Any:
        """The numbers, which PyTorch does not give for a subclass."""
        return self.hidden.tolist()

    def __format__(self, form: str) -> str:
        return format(self.hidden.detach(), form)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return repr(self.hidden).replace("tensor", NAME, 1)

    def __deepcopy__(self, memo: dict) -> Tensor:
        twin = StandInTensor(self.hidden.detach().clone())
        twin = nn.Parameter(twin) if isinstance(self, nn.Parameter) else twin
        return memo.setdefault(id(self), twin.requires_grad_(self.requires_grad))

    def __reduce_ex__(self, protocol: int) -> Any:
        return self.hidden.detach().__reduce_ex__(protocol)  # what is saved here is loaded as a tensor of the CPU


def compute(operation: Any, args: tuple, kwargs: dict) -> Any:
    """The operation on the hidden tensors.

    Raises:
        RuntimeError: tensors of two devices, or a random generator of the CPU.
    """
    name, leaves = operation._schema.name, tree_leaves((args, kwargs))
    ours = [leaf for leaf in leaves if isinstance(leaf, StandInTensor)]
    if kwargs.get("device"):
        there = torch.device(kwargs["device"]).type == NAME
    else:
        there = bool(ours) if name != "aten::copy_" else isinstance(args[0], StandInTensor)
    if ours and name not in COPIES:
        looked_up = args[:1] + args[2:] if name in LOOKUPS else (args, kwargs)
        others = [x for x in tree_leaves(looked_up) if isinstance(x, Tensor) and not isinstance(x, StandInTensor)]
        changed = args[0] if name.endswith("_") else None
        if any(x.dim() > 0 or x is changed for x in others):  # as on CUDA, a number may be read from the CPU
            raise RuntimeError(f"{name}: expected all tensors on the same device, but found {NAME} and cpu")
    if there and any(isinstance(leaf, torch.Generator) for leaf in leaves):
        raise RuntimeError(f"{name}: expected a generator of {NAME}, but found one of the CPU")
    args, kwargs = tree_map(lambda x: x.hidden if isinstance(x, StandInTensor) else x, (args, kwargs))
    if there and "device" in kwargs:
        kwargs["device"] = torch.device("cpu")
    known = {id(x.hidden): x for x in ours}  # an operation in place gives back what it was given
    result = operation(*args, **kwargs)

    def hide(x: Any) -> Any:
        return known[id(x)] if id(x) in known else StandInTensor(x) if isinstance(x, Tensor) else x

    return tree_map(hide, result) if there else result


class Module(_DummyBackendModule):
    """What PyTorch asks of ``torch.standin``."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """Without it ``torch.autocast`` refuses a device even where it is told to do nothing."""
        return [torch.bfloat16]


def register() -> None:
    """Make the device; a second call does nothing."""
    if _registered:
        return
    _setup_privateuseone_for_python_backend(NAME, backend_module=Module())
    library, fallback = torch.library.Library("aten", "IMPL"), torch.library.Library("_", "IMPL")
    _registered.extend([library, fallback])  # the kernels live as long as these do
    fallback.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")  # half precision changes nothing here
    for operation in filter(None, map(_maker, torch._C._dispatch_get_all_op_names())):

        def kernel(*args: Any, _operation: Any = operation, **kwargs: Any) -> Any:
            return compute(_operation, args, kwargs | {"device": kwargs.get("device") or NAME})

        library.impl(operation.name().removeprefix("aten::"), kernel, "PrivateUse1")

    def copy(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
        return compute(torch.ops.aten.copy_.default, (target, source, non_blocking), {})

    library.impl("_copy_from", copy, "PrivateUse1")
    _mend()


def _maker(name: str) -> Any:
    """The operation of this name if it makes tensors on a device from numbers alone, as ``zeros`` and ``randn`` do."""
    short, _, overload = name.removeprefix("aten::").partition(".")
    operation = getattr(getattr(torch.ops.aten, short, None), overload or "default", None)
    kinds = {argument.name: str(argument.type) for argument in operation._schema.arguments} if operation else {}
    if "device" not in kinds or any("Tensor" in kind for kind in kinds.values()):
        return None
    keys = ("CPU", "CompositeExplicitAutograd")
    return operation if any(torch._C._dispatch_has_kernel_for_dispatch_key(name, key) for key in keys) else None


def _mend() -> None:
    """Let the stand-in pass where PyTorch and safetensors reach around a tensor's operations."""

    def elsewhere(run: Any) -> Any:
        def through_the_cpu(*args: Any) -> Any:
            tensors = [x for x in tree_leaves(args) if isinstance(x, Tensor) and x.is_floating_point()]
            if not any(isinstance(x, StandInTensor) for x in tensors):
                return run(*args)
            if not all(isinstance(x, StandInTensor) for x in tensors):
                raise RuntimeError(f"{run.__name__}: expected all tensors on the same device")
            args = tree_map(lambda x: x.cpu() if isinstance(x, StandInTensor) else x, args)
            return tree_map(lambda x: x.to(NAME) if isinstance(x, Tensor) else x, run(*args))

        return through_the_cpu

    for name in ("gru", "lstm"):  # fused on every device but the CPU, where there is no such kernel
        setattr(rnn._VF, name, elsewhere(getattr(rnn._VF, name)))

    def find_size(self: nn.LazyLinear, x: Tensor) -> None:
        if self.in_features == 0:
            full = nn.Linear(x.shape[-1], self.out_features, self.bias is not None, device=x.device)
            self.in_features, self.weight, self.bias = x.shape[-1], full.weight, full.bias

    nn.LazyLinear.initialize_parameters = find_size
    load = torch.load

    def load_there(file: Any, map_location: Any = None, **options: Any) -> Any:
        if not isinstance(map_location, str | torch.device) or torch.device(map_location).type != NAME:
            return load(file, map_location, **options)
        return tree_map(lambda x: x.to(NAME) if isinstance(x, Tensor) else x, load(file, "cpu", **options))

    torch.load = load_there
    pointer, size = safetensors.torch.storage_ptr, safetensors.torch.storage_size
    safetensors.torch.storage_ptr = lambda x: pointer(getattr(x, "hidden", x))
    safetensors.torch.storage_size = lambda x: size(getattr(x, "hidden", x))


def adopt() -> None:
    """Let mmgan_lib train on the stand-in; to be called before anything asks for ``runtime.device``."""
    from mmgan_lib import runtime

    register()
    runtime.device = lambda: torch.device(NAME, 0)
    runtime.machine = lambda where: f"{where} (a stand-in for a GPU)"
