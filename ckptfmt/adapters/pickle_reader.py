"""What a pickle describes, read without running it.

A pickle is a program for a stack machine that may import any name and call it. This reader follows the program over plain values only.
A name that it imports is looked up in a table of the caller's: a `Builder` is a function of ours that may be called in its place, any
other entry merely stands for the name. What the table lacks is never imported and never called: it is refused, all such names at once,
or, where the caller asks for that, its instances become an `Instance` with the data that the pickle gives them.

What it cannot do is judge whether the values mean what their names say. Nothing here knows a file format or a library.
Instructions: https://docs.python.org/3/library/pickletools.html
"""

from __future__ import annotations

import pickletools
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from ckptfmt.errors import CorruptError, LimitError, UnsupportedTypeError
from ckptfmt.format.rules import visible

MAX_INSTRUCTIONS = 100_000_000
_SHOWN_NAMES = 10
_OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg", "UserDict": "collections"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True, slots=True)
class Builder:
    """A function of ours that stands for a name, and may be called where the pickle calls that."""

    build: Callable[..., Any]


@dataclass(eq=False, slots=True)
class Instance:
    """What a pickle says of an object whose class has no builder: its name, its arguments, and what it was given later."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)
    members: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Unknown:
    name: str


def read_pickle(
    file: BinaryIO,
    names: Mapping[str, Any],
    *,
    where: str,
    persistent: Callable[[Any], Any] | None = None,
    replaced: Callable[[Instance, BinaryIO], Any] | None = None,
    allow_unknown: bool = False,
) -> Any:
    """Read one pickle from where `file` stands, and leave the file behind its last instruction.

    `names` maps "module.name" to a `Builder` or to what stands for the name; `persistent` resolves references to what lies outside.
    `replaced` is called with each instance that was given its state, and with the file, from which it may take what is no instruction.
    With `allow_unknown` objects of other classes come as `Instance`, and so does what other functions would return.

    Raises:
        UnsupportedTypeError: it imports names that the table lacks; all of them are listed, and nothing was run.
        CorruptError: it is no sound pickle.
        LimitError: it is longer than any file of weights.
    """
    machine = _Machine(names, persistent, allow_unknown=allow_unknown)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count >= MAX_INSTRUCTIONS:
                raise LimitError(f"{where}: a pickle of more than {MAX_INSTRUCTIONS:,} instructions is not read", path=where)
            machine.step(opcode.name, argument)
            if replaced is not None and opcode.name == "BUILD":
                machine.replace_last(replaced, file)
        result = machine.result()
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, (LimitError, UnsupportedTypeError)):
            raise
        if machine.refused:
            raise _refusal(where, list(machine.refused)) from None
        raise CorruptError(f"{where}: not a sound pickle: {visible(str(error)[:200])}\nThe file is damaged.", path=where) from error
    if machine.refused:
        raise _refusal(where, list(machine.refused))
    return result


def _refusal(where: str, refused: list[str]) -> UnsupportedTypeError:
    shown = ", ".join(visible(name) for name in refused[:_SHOWN_NAMES])
    more = f" and {len(refused) - _SHOWN_NAMES} more" if len(refused) > _SHOWN_NAMES else ""
    return UnsupportedTypeError(
        f"{where}: asks for {len(refused)} names that are no plain data: {shown}{more}\n"
        "Nothing was imported or run. The data of such objects can be taken as plain mappings.",
        path=where,
    )


class _Machine:
    """The stack machine. MARK puts the stack aside and begins a new one."""

    def __init__(self, names: Mapping[str, Any], persistent: Callable[[Any], Any] | None, *, allow_unknown: bool) -> None:
        self.refused: dict[str, None] = {}
        self._names = names
        self._persistent = persistent
        self._allow_unknown = allow_unknown
        self._stack: list[Any] = []
        self._aside: list[list[Any]] = []
        self._memory: dict[int, Any] = {}
        self._result: list[Any] = []

    def result(self) -> Any:
        if len(self._result) != 1 or self._stack or self._aside:
            raise ValueError("it ends in the middle")
        return self._result[0]

    def step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _SHORT_TUPLES:
            count = _SHORT_TUPLES[name]
            self._stack[-count:] = [tuple(self._last(count))]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memory[argument] = self._stack[-1]
        elif name == "MEMOIZE":
            self._memory[len(self._memory)] = self._stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self._stack.append(self._memory[argument])
        elif name not in ("PROTO", "FRAME"):
            step = _STEPS.get(name)
            if step is None:
                raise ValueError(f"instruction {name} is not read")
            step(self, argument)

    def replace_last(self, replaced: Callable[[Instance, BinaryIO], Any], file: BinaryIO) -> None:
        if isinstance(self._stack[-1], Instance):
            self._stack[-1] = replaced(self._stack[-1], file)

    def _last(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise ValueError("it takes more from the stack than there is")
        return self._stack[-count:]

    def _marked(self) -> list[Any]:
        """Take everything since the last MARK."""
        items, self._stack = self._stack, self._aside.pop()
        return items

    def mark(self, _: Any) -> None:
        self._aside.append(self._stack)
        self._stack = []

    def stop(self, _: Any) -> None:
        self._result.append(self._stack.pop())

    def pop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._marked()

    def pop_mark(self, _: Any) -> None:
        self._marked()

    def duplicate(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def new_list(self, _: Any) -> None:
        self._stack.append([])

    def new_dict(self, _: Any) -> None:
        self._stack.append({})

    def new_set(self, _: Any) -> None:
        self._stack.append(set())

    def marked_list(self, _: Any) -> None:
        items = self._marked()
        self._stack.append(items)

    def marked_tuple(self, _: Any) -> None:
        items = self._marked()
        self._stack.append(tuple(items))

    def marked_frozenset(self, _: Any) -> None:
        items = self._marked()
        self._stack.append(frozenset(items))

    def marked_dict(self, _: Any) -> None:
        items = self._marked()
        self._stack.append(dict(_pairs(items)))

    def append(self, _: Any) -> None:
        self._extend([self._stack.pop()])

    def appends(self, _: Any) -> None:
        self._extend(self._marked())

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Instance):
            target.items.extend(items)
        elif isinstance(target, (list, deque)):
            target.extend(items)
        else:
            raise TypeError(f"it appends to a value of type {type(target).__name__}")

    def add_items(self, _: Any) -> None:
        items = self._marked()
        _as(set, self._stack[-1], "add").update(items)

    def set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([(key, value)])

    def set_items(self, _: Any) -> None:
        self._set(_pairs(self._marked()))

    def _set(self, pairs: list[tuple[Any, Any]]) -> None:
        target = self._stack[-1]
        if isinstance(target, Instance):
            target.members.extend(pairs)
        else:
            _as(dict, target, "set an item").update(pairs)

    def global_name(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._import(module, name)

    def stack_global(self, _: Any) -> None:
        module, name = self._last(2)
        del self._stack[-2:]
        self._import(_as(str, module, "import"), _as(str, name, "import"))

    def _import(self, module: str, name: str) -> None:
        full = f"{_OLD_MODULES.get(module, module)}.{name}"
        if full in self._names:
            self._stack.append(self._names[full])
            return
        if not self._allow_unknown:
            self.refused[full] = None
        self._stack.append(_Unknown(full))

    def reduce(self, _: Any) -> None:
        arguments = _as(tuple, self._stack.pop(), "call")
        self._stack.append(_call(self._stack.pop(), arguments, {}))

    def new_object(self, _: Any) -> None:
        arguments = _as(tuple, self._stack.pop(), "call")
        self._stack.append(_call(self._stack.pop(), arguments, {}))

    def new_object_with_names(self, _: Any) -> None:
        named = _as(dict, self._stack.pop(), "call")
        arguments = _as(tuple, self._stack.pop(), "call")
        self._stack.append(_call(self._stack.pop(), arguments, named))

    def instance(self, argument: str) -> None:
        arguments = tuple(self._marked())
        self.global_name(argument)
        self._stack.append(_call(self._stack.pop(), arguments, {}))

    def marked_object(self, _: Any) -> None:
        target, *arguments = self._marked()
        self._stack.append(_call(target, tuple(arguments), {}))

    def build(self, _: Any) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, Instance):
            target.state = state
        elif type(target) is OrderedDict and isinstance(state, dict):
            # A state_dict of torch carries the versions of its modules as an attribute.
            if "_metadata" in state:
                target._metadata = state["_metadata"]  # type: ignore[attr-defined]
        elif not (isinstance(target, dict) and isinstance(state, dict)):
            raise TypeError(f"it gives attributes to a value of type {type(target).__name__}")

    def persistent_text(self, argument: str) -> None:
        self._resolve(argument)

    def persistent_value(self, _: Any) -> None:
        self._resolve(self._stack.pop())

    def _resolve(self, reference: Any) -> None:
        if self._persistent is None:
            raise ValueError("it refers to something outside")
        self._stack.append(self._persistent(reference))


def _call(target: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    if isinstance(target, Builder):
        return target.build(*arguments, **named)
    if isinstance(target, _Unknown):
        if target.name == "copyreg._reconstructor" and arguments:
            return _call(arguments[0], (), {})
        return Instance(target.name, arguments, None, [], list(named.items()))
    raise TypeError(f"it calls a value of type {type(target).__name__}")


def _as(kind: type, value: Any, verb: str) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{verb}: expected a {kind.__name__}, found {type(value).__name__}")
    return value


def _pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    if len(items) % 2:
        raise ValueError("a key without a value")
    return list(zip(items[::2], items[1::2], strict=True))


_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "STOP": _Machine.stop,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": _Machine.duplicate,
    "EMPTY_LIST": _Machine.new_list,
    "EMPTY_DICT": _Machine.new_dict,
    "EMPTY_SET": _Machine.new_set,
    "LIST": _Machine.marked_list,
    "TUPLE": _Machine.marked_tuple,
    "FROZENSET": _Machine.marked_frozenset,
    "DICT": _Machine.marked_dict,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.add_items,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.global_name,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.new_object,
    "NEWOBJ_EX": _Machine.new_object_with_names,
    "INST": _Machine.instance,
    "OBJ": _Machine.marked_object,
    "BUILD": _Machine.build,
    "PERSID": _Machine.persistent_text,
    "BINPERSID": _Machine.persistent_value,
}
