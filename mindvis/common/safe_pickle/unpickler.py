"""A pickle machine that calls nothing but a short list of constructors.

A pickle is a program; its dangerous instructions are those that import a name and call it. Here a name is looked up in
a table and never imported. Names of the standard library outside the table are refused on sight; any other name becomes
an `Unknown`, which can be instantiated as an empty `Bag` (as pickle makes objects: without their constructor) and
cannot be called.
"""

import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from mindvis.common.safe_pickle.arrays import build_array, build_dtype
from mindvis.common.safe_pickle.rules import Unknown, brief, check_keys, refuse


@dataclass(eq=False)
class Bag:
    """What is left of an object of an unknown class: its attributes, and its items where it was a dict or a list."""

    class_name: str
    attributes: dict = field(default_factory=dict)
    items: dict = field(default_factory=dict)
    elements: list = field(default_factory=list)


@dataclass(frozen=True)
class Admitted:
    """A constructor the pickle may call, under the name the pickle has for it."""

    name: str
    function: Callable


def _ordered(pairs: object = ()) -> OrderedDict:
    check_keys([key for key, _ in pairs] if isinstance(pairs, list | tuple) else refuse("an OrderedDict of no pairs"))
    return OrderedDict(pairs)


def _set(elements: list) -> set:
    check_keys(elements)
    return set(elements)


def _old_object(cls: object, base: object, state: object) -> Bag:
    if not isinstance(cls, Unknown) or base != Unknown("builtins.object") or state is not None:
        refuse(f"an object of {brief(cls)} built on {brief(base)}")
    return Bag(cls.name)


def _latin1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        refuse(f"the text encoding {brief(encoding)}")
    return text.encode("latin1")


def _path(*parts: object) -> str:
    return "/".join(part if isinstance(part, str) else refuse("a path of other parts than text") for part in parts)


PLAIN: Mapping[str, Callable] = {
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": lambda factory=None: {},
    "builtins.set": _set,
    "builtins.bytearray": lambda content=b"": bytes(content) if isinstance(content, bytes) else refuse("a bytearray"),
    "_codecs.encode": _latin1,  # how protocol 2 writes bytes
    "copyreg._reconstructor": _old_object,  # how protocols 0 and 1 write objects
    "types.SimpleNamespace": lambda: Bag("types.SimpleNamespace"),
    **{f"pathlib.{kind}Path": _path for kind in ("", "Posix", "Windows", "PurePosix", "PureWindows")},
}
# Names of the standard library that a pickle may mention: types, and classes that become bags.
MENTIONED = {
    f"builtins.{kind.__name__}" for kind in (object, dict, list, tuple, set, str, bytes, int, float, bool, type)
}
MENTIONED |= {"builtins.long", "builtins.unicode", "argparse.Namespace", "types.NoneType"}  # two are of Python 2
MODULE_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg", "numpy.core": "numpy._core"}


def canonical(module: str, name: str) -> str:
    """Today's name of a global: `copy_reg` of Python 2 is `copyreg`, `numpy.core` is `numpy._core`."""
    for old, new in MODULE_NAMES.items():
        if module == old or module.startswith(old + "."):
            module = new + module[len(old) :]
    return f"{module}.{name}"


class SafeUnpickler(pickle._Unpickler):  # the Python machine: every instruction can be replaced
    """Reads one pickle from `file`; `admitted` adds constructors, `storage` answers persistent ids."""

    dispatch = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: BinaryIO, admitted: Mapping[str, Callable], storage: Callable | None = None):
        super().__init__(file, encoding="latin1")
        self.admitted = {**PLAIN, **admitted}
        self.storage = storage

    def find_class(self, module: str, name: str) -> Admitted | Unknown:
        full = canonical(module, name)
        if full in self.admitted:
            return Admitted(full, self.admitted[full])
        root = full.split(".", maxsplit=1)[0]
        if root in sys.stdlib_module_names and root != "typing" and full not in MENTIONED:
            refuse(f"{full}: not a tensor, an array or a plain container")
        return Unknown(full)

    def persistent_load(self, pid: object) -> object:
        if self.storage is None or not isinstance(pid, tuple):
            refuse(f"the persistent id {brief(pid)}")
        return self.storage(pid)

    def load_reduce(self) -> None:
        args = self.stack.pop()
        function = self.stack[-1]
        if not isinstance(function, Admitted) or not isinstance(args, tuple):
            refuse(f"a call of {brief(function)}")
        self.stack[-1] = function.function(*args)

    def load_newobj(self) -> None:
        args = self.stack.pop()
        cls = self.stack.pop()
        if isinstance(cls, Admitted) and cls.name in ("collections.OrderedDict", "types.SimpleNamespace"):
            self.append(cls.function())
            return
        if not isinstance(cls, Unknown) or cls.name.startswith("builtins."):
            refuse(f"an object of {brief(cls)}")
        self.append(Bag(cls.name, {"args": args} if args else {}))

    def load_newobj_ex(self) -> None:
        self.stack.pop()  # keyword arguments of __new__: nothing is constructed, so they have no use
        self.load_newobj()

    def load_build(self) -> None:
        state = self.stack.pop()
        build(self.stack[-1], state)

    def load_setitem(self) -> None:
        value = self.stack.pop()
        fill(self.stack[-2], [self.stack.pop(), value])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        fill(self.stack[-1], items)

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append(fill({}, items))

    def load_append(self) -> None:
        value = self.stack.pop()
        extend(self.stack[-1], [value])

    def load_appends(self) -> None:
        values = self.pop_mark()
        extend(self.stack[-1], values)

    def load_additems(self) -> None:
        elements = self.pop_mark()
        target = self.stack[-1]
        check_keys(elements)
        target.update(elements) if type(target) is set else refuse(f"elements added to a {type(target).__name__}")

    def load_frozenset(self) -> None:
        self.append(frozenset(_set(self.pop_mark())))

    def load_bytearray8(self) -> None:
        size = int.from_bytes(self.read(8), "little")
        self.append(bytes(self.read(size)))  # reads what is there: a false size allocates nothing

    def load_inst(self) -> None:
        module, name = (self.readline()[:-1].decode("utf-8", "replace") for _ in range(2))
        refuse(f"a call of {module}.{name}")

    def load_obj(self) -> None:
        refuse(f"a call of {brief(next(iter(self.pop_mark()), None))}")

    def load_refused(self) -> None:
        refuse("a name by its number in a registry, or a buffer from outside")

    for _code, _method in {
        pickle.REDUCE: load_reduce,
        pickle.NEWOBJ: load_newobj,
        pickle.NEWOBJ_EX: load_newobj_ex,
        pickle.BUILD: load_build,
        pickle.SETITEM: load_setitem,
        pickle.SETITEMS: load_setitems,
        pickle.DICT: load_dict,
        pickle.APPEND: load_append,
        pickle.APPENDS: load_appends,
        pickle.ADDITEMS: load_additems,
        pickle.FROZENSET: load_frozenset,
        pickle.BYTEARRAY8: load_bytearray8,
        pickle.INST: load_inst,
        pickle.OBJ: load_obj,
        **dict.fromkeys((pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEXT_BUFFER), load_refused),
    }.items():
        dispatch[_code[0]] = _method


def fill(target: object, items: list) -> object:
    """Put key, value, key, value ... into a dict, or into a bag that was one."""
    if type(target) not in (dict, OrderedDict, Bag):
        refuse(f"items set on a {type(target).__name__}")
    check_keys(items[::2])
    (target.items if type(target) is Bag else target).update(zip(items[::2], items[1::2], strict=True))
    return target


def extend(target: object, values: list) -> None:
    """Append to a list, or to a bag that was one."""
    if type(target) not in (list, Bag):
        refuse(f"elements appended to a {type(target).__name__}")
    (target.elements if type(target) is Bag else target).extend(values)


def build(target: object, state: object) -> None:
    """Give an object its state, as BUILD does, without `__setstate__` of anything but arrays."""
    if isinstance(target, np.ndarray):
        build_array(target, state)
    elif isinstance(target, np.dtype):
        build_dtype(target, state)
    elif isinstance(target, Bag):
        # With __slots__ the state is a pair (dict or None, dict of slots).
        for part in state if isinstance(state, tuple) else (state,):
            named = isinstance(part, dict) and all(isinstance(key, str) for key in part)
            target.attributes.update(part if named else {} if part is None else {"state": part})
    elif type(target) is not OrderedDict:  # an OrderedDict's are module versions, of no use here
        refuse(f"a state set on a {type(target).__name__}")
