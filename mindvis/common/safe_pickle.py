"""Pickles read without running anything in them: tensors, arrays, plain containers and bags of attributes.

A pickle is a program; its dangerous instructions are those that import a name and call it. Here a name is looked up in
a table of our own constructors and never imported. Names of the standard library outside the table are refused on
sight. Any other name can be instantiated as an empty `Bag` (as pickle makes objects: without their constructor) and
cannot be called.
"""

import itertools
import math
import mmap
import pickle
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NoReturn

import numpy as np

MAX_NESTING = 32  # of settings; the published ones are two or three deep
MAX_ENTRIES = 100_000  # lists of the same lists, 32 deep, would unfold to thousands of millions
PLAIN_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c(8|16)|O8?|[SU]\d{1,9})")
LATIN1 = ("latin1", "latin-1")  # as bytes are written by protocol 2
TODAY = {"__builtin__": "builtins", "copy_reg": "copyreg", "numpy.core": "numpy._core"}  # modules by their old names


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names, as module.name; only one with a `function` of ours can be called."""

    name: str
    function: Callable | None = field(default=None, compare=False)


@dataclass(eq=False)
class Bag:
    """What is left of an object of an unknown class: its attributes, and its items where it was a dict or a list."""

    class_name: str
    attributes: dict = field(default_factory=dict)
    items: dict = field(default_factory=dict)
    elements: list = field(default_factory=list)


def as_settings(value: object) -> Any:
    """Settings as dicts, lists and scalars: bags become dicts, OmegaConf nodes what they hold, classes their names.

    Back references (an OmegaConf node knows its parent) end as None at MAX_NESTING. Raises UnpicklingError where
    they unfold to more than MAX_ENTRIES.
    """
    counter = itertools.count(1)

    def convert(value: object, depth: int) -> Any:
        if next(counter) > MAX_ENTRIES:
            raise pickle.UnpicklingError(f"settings of more than {MAX_ENTRIES} entries")
        if depth > MAX_NESTING:
            return None
        if isinstance(value, Bag):
            return convert(_content(value), depth + 1)
        if isinstance(value, dict):
            return {_scalar(key): convert(entry, depth + 1) for key, entry in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [convert(entry, depth + 1) for entry in value]
        return _scalar(value)

    return convert(value, 0)


def _content(bag: Bag) -> object:
    if bag.class_name.startswith("omegaconf."):
        return bag.attributes.get("_content", bag.attributes.get("_val"))
    return bag.elements if bag.elements and not bag.items else {**bag.attributes, **bag.items}


def _scalar(value: object) -> object:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return value.name if isinstance(value, Name) else value


def refuse(what: str) -> NoReturn:
    """Stop reading and name what was found; control characters are escaped, so that the message is one line."""
    raise pickle.UnpicklingError("refused " + what.encode("unicode_escape").decode()[:200])


def brief(value: object) -> str:
    """A short text for a message: of a container the type alone, for its text could be of any length."""
    scalar = isinstance(value, str | bytes | int | float) or value is None
    return repr(value)[:80] if scalar else getattr(value, "name", type(value).__name__)


def check_keys(keys: list) -> None:
    """Dict keys and set elements are scalars, names or tuples of scalars: deep ones take for ever to hash."""
    for key in keys:
        parts = key if isinstance(key, tuple) else (key,)
        if not all(part is None or isinstance(part, str | bytes | int | float | Name) for part in parts):
            refuse(f"a {type(key).__name__} as a key")


def check_shape(shape: object) -> int:
    """Number of elements of a shape that is a short tuple of non-negative integers."""
    if not isinstance(shape, tuple) or len(shape) > 32 or not all(type(n) is int and 0 <= n < 2**48 for n in shape):
        refuse(f"the shape {brief(shape)}: not a tuple of a few sizes")
    return math.prod(shape)


# Constructors that a pickle may call


def _ordered(pairs: Any = ()) -> OrderedDict:
    check_keys([key for key, _ in pairs] if isinstance(pairs, list | tuple) else refuse("an OrderedDict of no pairs"))
    return OrderedDict(pairs)


def _set(elements: list) -> set:
    check_keys(elements)
    return set(elements)


def _old_object(cls: object, base: object, state: object) -> Bag:
    """An object as protocols 0 and 1 write it."""
    if not isinstance(cls, Name) or base != Name("builtins.object") or state is not None:
        refuse(f"an object of {brief(cls)} built on {brief(base)}")
    return Bag(cls.name)


def _path(*parts: object) -> str:
    return "/".join(part if isinstance(part, str) else refuse("a path of other parts than text") for part in parts)


def _empty_array(kind: object, shape: object, code: object) -> np.ndarray:
    return np.ndarray(0, np.int8) if kind == Name("numpy.ndarray") else refuse(f"an array of the kind {brief(kind)}")


def _dtype(code: str, align: object = False, copy: object = True) -> np.dtype:
    if not isinstance(code, str) or not PLAIN_DTYPE.fullmatch(code):
        refuse(f"the dtype {brief(code)}")
    return np.dtype(code, copy=True)  # a copy, because BUILD changes it in place


def _array(content: object, dtype: np.dtype, shape: object, order: str = "C") -> np.ndarray:
    """An array from its buffer, as protocol 5 writes it."""
    array = np.ndarray(0, np.int8)
    _build_array(array, (shape, dtype, order == "F", content))
    return array


CONSTRUCTORS: Mapping[str, Callable] = {
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": lambda factory=None: {},
    "builtins.set": _set,
    "builtins.bytearray": lambda content=b"": bytes(content) if isinstance(content, bytes) else refuse("a bytearray"),
    "_codecs.encode": lambda text, code: text.encode(code) if code in LATIN1 else refuse(f"the encoding {brief(code)}"),
    "copyreg._reconstructor": _old_object,
    "types.SimpleNamespace": lambda: Bag("types.SimpleNamespace"),
    **{f"pathlib.{kind}Path": _path for kind in ("", "Posix", "Windows", "PurePosix", "PureWindows")},
    "numpy._core.multiarray._reconstruct": _empty_array,
    "numpy._core.multiarray.scalar": lambda dtype, content=b"": _array(content, dtype, ())[()],
    "numpy._core.numeric._frombuffer": _array,
    "numpy.dtype": _dtype,
}
# Types and classes of the standard library that a pickle may mention; two are of Python 2.
TYPES = "object dict list tuple set str bytes int float bool type long unicode"
MENTIONED = {"argparse.Namespace", "types.NoneType", *(f"builtins.{name}" for name in TYPES.split())}


class SafeUnpickler(pickle._Unpickler):  # the Python one: every instruction can be replaced
    """Reads one pickle from `file`; a subclass may admit more `constructors`."""

    constructors = CONSTRUCTORS
    # of the class that is extended, which is not documented
    stack: list
    append: Callable[[object], None]
    pop_mark: Callable[[], list]
    read: Callable[[int], bytes]

    def __init__(self, file: BinaryIO | mmap.mmap, *, encoding: str = "latin1"):
        super().__init__(file, encoding=encoding)
        replaced = pickle._Unpickler.dispatch.items()
        own = {code: getattr(type(self), instruction.__name__) for code, instruction in replaced}
        self.dispatch = own  # type: ignore[misc]

    def find_class(self, module: str, name: str) -> Name:
        old = next((old for old in TODAY if module == old or module.startswith(old + ".")), "")
        full = f"{TODAY.get(old, '')}{module.removeprefix(old)}.{name}"
        function = self.constructors.get(full)
        is_standard = module.split(".", maxsplit=1)[0] in sys.stdlib_module_names or old in ("__builtin__", "copy_reg")
        if function is None and is_standard and full not in MENTIONED and not full.startswith("typing."):
            refuse(f"{full}: not a tensor, an array or a plain container")
        return Name(full, function)

    def get_extension(self, code: int) -> NoReturn:
        refuse("a name by its number in a registry")

    def _instantiate(self, cls: object, args: object) -> NoReturn:  # of INST and OBJ
        refuse(f"a call of {brief(cls)}")

    def load_reduce(self) -> None:
        args = self.stack.pop()
        called = self.stack[-1]
        if not isinstance(called, Name) or called.function is None or not isinstance(args, tuple):
            refuse(f"a call of {brief(called)}")
        self.stack[-1] = called.function(*args)

    def load_newobj(self) -> None:
        args = self.stack.pop()
        cls = self.stack.pop()
        if not isinstance(cls, Name) or cls.function is not None or cls.name.startswith("builtins."):
            refuse(f"an object of {brief(cls)}")
        self.append(Bag(cls.name, {"args": args} if args else {}))

    def load_newobj_ex(self) -> None:
        self.stack.pop()  # keyword arguments of __new__: nothing is constructed, so they have no use
        self.load_newobj()

    def load_build(self) -> None:
        state = self.stack.pop()
        _build(self.stack[-1], state)

    def load_setitem(self) -> None:
        value = self.stack.pop()
        self._fill([self.stack.pop(), value])

    def load_setitems(self) -> None:
        self._fill(self.pop_mark())

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._fill(items)

    def _fill(self, items: list) -> None:
        """Put key, value, key, value ... into a dict, or into a bag that was one."""
        target = self.stack[-1]
        if type(target) not in (dict, OrderedDict, Bag):
            refuse(f"items set on a {type(target).__name__}")
        check_keys(items[::2])
        (target.items if type(target) is Bag else target).update(zip(items[::2], items[1::2], strict=True))

    def load_append(self) -> None:
        self._extend([self.stack.pop()])

    def load_appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, values: list) -> None:
        """Append to a list, or to a bag that was one."""
        target = self.stack[-1]
        if type(target) not in (list, Bag):
            refuse(f"elements appended to a {type(target).__name__}")
        (target.elements if type(target) is Bag else target).extend(values)

    def load_additems(self) -> None:
        elements = _set(self.pop_mark())
        target = self.stack[-1]
        target.update(elements) if type(target) is set else refuse(f"elements added to a {type(target).__name__}")

    def load_frozenset(self) -> None:
        self.append(frozenset(_set(self.pop_mark())))

    def load_bytearray8(self) -> None:
        size = int.from_bytes(self.read(8), "little")
        self.append(bytes(self.read(size)))  # reads what is there: a false size allocates nothing


def _build(target: object, state: object) -> None:
    """Give an object its state, as BUILD does, without `__setstate__` of anything but arrays."""
    if isinstance(target, np.ndarray):
        _build_array(target, state)
    elif isinstance(target, np.dtype):
        _build_dtype(target, state)
    elif isinstance(target, Bag):
        # With __slots__ the state is a pair (dict or None, dict of slots).
        for part in state if isinstance(state, tuple) else (state,):
            named = isinstance(part, dict) and all(isinstance(key, str) for key in part)
            target.attributes.update(part if named else {} if part is None else {"state": part})
    elif type(target) is not OrderedDict:  # an OrderedDict's are module versions, of no use here
        refuse(f"a state set on a {type(target).__name__}")


def _build_array(array: Any, state: object) -> None:
    """Give an empty array its shape, dtype and content: state (version, shape, dtype, is_fortran, bytes or list)."""
    if not isinstance(state, tuple) or len(state) not in (4, 5):
        refuse("an array without shape, dtype and content")
    shape, dtype, is_fortran, content = state[-4:]
    content = content.encode("latin1") if isinstance(content, str) else content  # written by Python 2
    count = check_shape(shape)
    if not isinstance(dtype, np.dtype):
        refuse("an array without a dtype")
    kind, size = (list, count) if dtype.hasobject else (bytes, count * dtype.itemsize)
    if not isinstance(content, kind) or len(content) != size:
        refuse(f"an array of shape {shape}, dtype {dtype}, whose content has another size")
    array.__setstate__((1, shape, dtype, bool(is_fortran), content))


def _build_dtype(dtype: Any, state: object) -> None:
    """Give a dtype its byte order: state (version, order, None, None, None, size, alignment, flags)."""
    if not isinstance(state, tuple) or len(state) != 8 or state[1] not in ("<", ">", "|", "=") or any(state[2:5]):
        refuse("a dtype with fields or metadata")
    if state[1] == ">" and dtype.kind in "iufc":
        dtype.__setstate__((3, ">", None, None, None, -1, -1, 0))
    elif state[1] == ">":
        refuse(f"big-endian {dtype}")
