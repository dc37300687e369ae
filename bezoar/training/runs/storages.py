"""Counts the bytes of the storages that torch holds, while a step is walked through or measured."""

import weakref
from typing import Any


def storage_bytes(tensors: Any) -> int:
    """Return the bytes of the storages of `tensors`. A storage that several share counts once."""
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(sizes.values())


def peak_of(operations: int | None = None) -> Any:
    """Return a dispatch mode that counts the bytes of storages made within it, and their peak.

    RuntimeError, raised within it: there are more operations than `operations`.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]
        live = peak = calls = 0

        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.counted: Any = weakref.WeakSet()

        def __torch_dispatch__(self, op: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.calls += 1
            if operations and self.calls > operations:
                raise RuntimeError(f"a step takes more than {operations:,} operations")
            # An operation in place, or a view, returns a storage of its inputs: nothing new.
            inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
            before = {t.untyped_storage()._cdata for t in inputs}
            out = op(*args, **(kwargs or {}))
            for tensor in tree_leaves(out):
                if not isinstance(tensor, torch.Tensor):
                    continue
                storage = tensor.untyped_storage()
                if storage not in self.counted and storage._cdata not in before:
                    self.counted.add(storage)
                    self.live += storage.nbytes()
                    self.peak = max(self.peak, self.live)
                    # The bytes are counted off when torch frees the storage, with its last tensor.
                    weakref.finalize(storage, self.gone, storage.nbytes())
            return out

        def gone(self, size: int) -> None:
            self.live -= size

    return Peak()
