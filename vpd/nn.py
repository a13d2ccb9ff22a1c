"""The bridge: a C++ parameter table becomes an ordinary ``nn.Module``."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Config = TypeVar("Config")
Net = TypeVar("Net", bound=nn.Module)


def channels_last(module: Net) -> Net:
    """Puts convolution kernels, in place, into the memory format the core works in.

    With contiguous kernels every call reorders them first. Freshly built networks have contiguous
    ones, which FSDP2 asks for; :func:`vpd.load` and the training loops call this.
    """
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def uninitialised(
    build: Callable[[], Net], device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> Net:
    """What ``build`` gives, its parameters and buffers in memory that nothing was written to, of
    ``dtype`` if one is given."""

    def memory(tensor: Tensor) -> Tensor:
        # Not empty_like, which of a meta tensor is Python that takes a third of a second to import.
        kind = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        return torch.empty(tensor.shape, dtype=kind, device=device)

    with torch.device("meta"):
        module = build()
    return module._apply(memory)  # type: ignore[no-untyped-call]


class BatchNormGroup(NamedTuple):
    """A process group as the core knows it; unlike the group itself it can be copied."""

    name: str
    size: int


def synchronize_batch_norm(module: Net, group: ProcessGroup | None) -> Net:
    """Lets all batch norms of ``module``, in place, use the statistics of a whole process group.

    Each process of ``group`` then calls the module with its own rows, as many as it has, and all
    call it together, forward and backward. Outputs, input gradients and running statistics are
    those of the rows of all processes in one batch; gradients of weights are those of the own
    rows, so their sum over processes is the whole batch's. In evaluation mode nothing is
    exchanged.

    Args:
        group: ``torch.distributed.group.WORLD``, or one of ``new_group``; None: each process for
            itself again.

    Example:
        >>> from vpd.models.refer_decoder import ReferDecoderConfig
        >>> head = vpd.ReferDecoder(ReferDecoderConfig(dims=(32, 64), hidden=16))
        >>> vpd.nn.synchronize_batch_norm(head, None).batch_norm_group is None
        True
    """
    known = None if group is None else BatchNormGroup(group.group_name, group.size())
    for part in module.modules():
        if hasattr(part, "batch_norm_group"):
            part.batch_norm_group = known  # type: ignore[assignment]
    return module


def _merge_parametrizations(copied: nn.Module) -> None:
    # remove_parametrizations would take them from the class, which the copy shares with its
    # original.
    names = list(copied.parametrizations)  # type: ignore[arg-type]
    plain = {name: nn.Parameter(getattr(copied, name).detach().clone()) for name in names}
    copied.__class__ = parametrize.type_before_parametrizations(copied)
    del copied.parametrizations
    for name, parameter in plain.items():
        copied.register_parameter(name, parameter)


class Network(nn.Module):
    """A module that can be frozen for inference."""

    def frozen(self, *, gradients: bool = False) -> Self:
        """An immutable copy for inference, called as this module is.

        On the CPU the kernels of convolutions are laid out once as oneDNN reads them, instead of at
        each call. Parametrised weights (LoRA) become plain ones, weights have no gradient, and the
        copy is in evaluation mode. Results are those of this module. Device and dtype are this
        module's at the time; the copy itself cannot be moved, converted, trained, copied or saved:
        that raises a ``RuntimeError``.

        Args:
            gradients: Whether gradients flow through to the inputs, as to a text adapter that is
                trained before a frozen U-Net; packed weights then take twice their memory. Without,
                a call that would need one raises a ``ValueError``.

        Example:
            >>> net = vpd.UNet(vpd.UNetConfig(model_channels=32, num_heads=4)).frozen()
            >>> with torch.no_grad():
            ...     out = net(torch.randn(1, 4, 32, 32), 1, torch.randn(1, 77, 768))
            >>> out.features[1].shape
            torch.Size([1, 64, 16, 16])
        """
        result = copy.deepcopy(self).eval().requires_grad_(False)
        for part in list(result.modules()):
            if parametrize.is_parametrized(part):
                _merge_parametrizations(part)
        for part in list(result.modules()):
            if isinstance(part, CoreModule):
                part._freeze(gradients)
        return result.requires_grad_(False)


class CoreModule(Network, Generic[Config]):
    """An ``nn.Module`` around a network of the C++ core.

    The core network owns no tensor: it has a table of names, shapes and initialisers. This class
    registers an
    ``nn.Parameter`` (or a buffer) for each row under its dotted name, in plain ``nn.Module``
    containers, and hands the tensors over at each call. So optimisers, ``state_dict``,
    ``deepcopy``, pickling, ``functional_call``, parametrisations, autocast, ``.to()``,
    ``utils.checkpoint``, DDP and FSDP2 work as with any other module.

    Args:
        config: Dataclass the network was described with; kept as ``self.config``.
        generator: Source of the initial weights; PyTorch's default generator if None. Device and
            dtype follow
            ``torch.set_default_device`` / ``torch.device(...)`` contexts and
            ``torch.set_default_dtype``.
    """

    config: Config
    is_frozen = False
    """Whether this is a copy that :meth:`frozen` made."""

    def __init__(self, config: Config, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self._core = self._build(config)
        device = torch.get_default_device()
        table = self._core.table()
        tensors = self._core.initialise(device, torch.get_default_dtype(), generator)
        for (name, _, is_buffer), tensor in zip(table, tensors, strict=True):
            container, leaf = self._container(name)
            if is_buffer:
                container.register_buffer(leaf, tensor)
            else:
                container.register_parameter(leaf, nn.Parameter(tensor))
        self._slots: list[tuple[nn.Module, str]] | None = None
        self._backward: list[Tensor] = []  # of packed weights

    @staticmethod
    def _build(config: Any) -> Any:
        """The C++ network of ``config``; each subclass names its own."""
        raise TypeError("CoreModule is a base class: use one of its subclasses, e.g. vpd.UNet")

    def _container(self, name: str) -> tuple[nn.Module, str]:
        *path, leaf = name.split(".")
        module: nn.Module = self
        for part in path:
            child = module._modules.get(part)
            if child is None:
                child = nn.Module()
                module.add_module(part, child)
            module = child
        return module, leaf

    def core_tensors(self) -> list[Tensor]:
        """Every parameter and buffer in table order, as the core expects them at a call; behind
        them, of a frozen network that gives gradients, what their backward passes read.

        Read through ``getattr``: a parametrised weight is computed here, a functionally replaced
        one is found here.
        """
        if self._slots is None:
            self._slots = [self._container(name) for name, _, _ in self._core.table()]
        return [*(getattr(module, leaf) for module, leaf in self._slots), *self._backward]

    def _freeze(self, gradients: bool) -> None:
        tensors = self.core_tensors()
        assert self._slots is not None
        packed = self._core.packed(tensors, gradients)
        self._backward = packed[len(tensors) :]
        for (container, leaf), tensor in zip(self._slots, packed[: len(tensors)], strict=True):
            if tensor.is_mkldnn:
                delattr(container, leaf)
                setattr(container, leaf, tensor)
        self.is_frozen = True

    def _refuse_if_frozen(self, what: str) -> None:
        if self.is_frozen:
            raise RuntimeError(
                f"a frozen {type(self).__name__} cannot be {what}; do that with the network it was "
                "made from, then call frozen() again"
            )

    def train(self, mode: bool = True) -> Self:
        if mode:
            self._refuse_if_frozen("trained")
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._refuse_if_frozen("moved or converted")
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _save_to_state_dict(self, *args: Any, **options: Any) -> None:
        self._refuse_if_frozen("saved")
        super()._save_to_state_dict(*args, **options)

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        self._refuse_if_frozen("given other weights")
        super()._load_from_state_dict(*args, **options)

    def __getstate__(self) -> dict[str, Any]:
        self._refuse_if_frozen("copied")
        # The core is rebuilt from the config; the slots point into this instance's containers.
        return {**self.__dict__, "_core": None, "_slots": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._core = self._build(self.config)
