"""Reading pickled files without running anything in them.

`load_torch` reads `torch.save` files, `load_object_npy` object arrays written by `numpy.save`. Both admit tensors,
arrays and plain containers, turn objects of unknown classes into bags of attributes and refuse everything else.
"""

from mindvis.common.safe_pickle.numpy_files import load_object_npy
from mindvis.common.safe_pickle.rules import Unknown
from mindvis.common.safe_pickle.settings import plain
from mindvis.common.safe_pickle.torch_files import load_torch
from mindvis.common.safe_pickle.unpickler import Bag

__all__ = ["Bag", "Unknown", "load_object_npy", "load_torch", "plain"]
