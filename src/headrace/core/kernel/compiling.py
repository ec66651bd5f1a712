"""How the kernel's functions are compiled: one by one without ceremony, then optimised once, together, behind a door.

The one idea: numba treats every function as one that Python may call. It rewrites it for what Python allows, wraps it,
optimises it with all that it calls and makes machine code of it, at each level again; and once more for every constant
that it is called with. A function of the kernel is only ever part of a door, so it is typed and lowered, and that is
all. A door links everything behind it, makes it private, so that LLVM inlines what has one caller, and optimises once.

Touches numba's compiler, and nothing where NUMBA_DISABLE_JIT=1. This is the one file that uses numba's private parts,
which have no types (hence `Any`); pyproject pins the version that they were read in, and test_compiling.py says what
broke.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

import numba
from llvmlite import binding as llvm
from numba.core import compiler, sigutils
from numba.core import typing as numba_typing
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, Flags
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.registry import cpu_target
from numba.core.typed_passes import (
    IRLegalization,
    NativeLowering,
    NoPythonBackend,
    NopythonTypeInference,
    PreLowerStripPhis,
)
from numba.core.types import Boolean, CPointer, Dispatcher, Function, Number, unliteral
from numba.core.untyped_passes import FixupArgs, IRProcessing, ReconstructSSA, TranslateByteCode

from headrace.core.kernel.cache import use_private_cache

use_private_cache()  # before the first function below is decorated

_Function = TypeVar("_Function", bound=Callable[..., object])

PLAIN = bool(numba.config.DISABLE_JIT)  # type: ignore[attr-defined]  # numba sets it when it is imported


def compiled(function: _Function) -> _Function:
    """A function of the kernel: compiled into every door that reaches it; plain Python with NUMBA_DISABLE_JIT=1.

    IEEE arithmetic as written: no fast math, no contraction, no exception at a division by zero. Called from Python,
    as tests do, it is a door that is not kept.
    """
    return _function(function, apart=False)


def apart(function: _Function) -> _Function:
    """As `compiled`, of a function whose pointers are to different memory, so that a write to one never makes it read
    what another points to again. It may not be given one array twice, nor hand a pointer out."""
    return _function(function, apart=True)


def door(function: _Function) -> _Function:
    """A function that Python calls: everything behind it is optimised once, here, and kept in the cache."""
    if PLAIN:
        return function
    return cast(_Function, numba.njit(cache=True, nogil=True, error_model="numpy", pipeline_class=_Door)(function))


def direct(door: Callable[..., int]) -> Callable[..., int]:
    """A door of one integer, without numba's look at what it is given, which costs as much again as the call."""
    if PLAIN:
        return door
    dispatcher = cast(Any, door)
    dispatcher.compile((numba.int64,))
    return cast(Callable[..., int], dispatcher.get_overload((numba.int64,)))


def _function(function: _Function, *, apart: bool) -> _Function:
    if PLAIN:
        return function
    dispatcher = cast(_Dispatcher, numba.njit(nogil=True, error_model="numpy", pipeline_class=_Door)(function))
    part = _Part(dispatcher, function, apart=apart)
    dispatcher.get_call_template = part.template
    dispatcher.get_overload = part.overload
    return cast(_Function, dispatcher)


class _Dispatcher(Protocol):
    get_call_template: Callable[..., object]
    get_overload: Callable[..., object]

    def fold_argument_types(self, args: object, kws: object) -> tuple[object, tuple[object, ...]]: ...


class _Part:
    """A function as others call it: what numba asks of a dispatcher while it types and lowers a call."""

    def __init__(self, dispatcher: _Dispatcher, function: Callable[..., object], *, apart: bool) -> None:
        self._dispatcher = dispatcher
        self._function = function
        self._apart = apart
        self._options = {"nopython": True, "nogil": True, "error_model": "numpy"}
        self._results: dict[tuple[object, ...], compiler.CompileResult] = {}

    def template(self, args: tuple[object, ...], kws: dict[str, object]) -> object:
        plain = tuple(unliteral(arg) for arg in args)
        signature, folded = self._dispatcher.fold_argument_types(plain, kws)
        result = self._results.get(folded)
        if result is None:
            result = self._results[folded] = self._compile(folded)
        name = self._function.__name__
        made = numba_typing.make_concrete_template(f"Part({name})", key=name, signatures=[result.signature])
        return made, signature, folded, {}

    def overload(self, signature: object) -> object:
        args, _ = sigutils.normalize_signature(signature)
        return self._results[tuple(args)].entry_point

    def _compile(self, args: tuple[object, ...]) -> compiler.CompileResult:
        flags = Flags()
        cpu_target.options.parse_as_flags(flags, self._options)
        flags.noalias = self._apart
        flags.no_cpython_wrapper = True
        flags.no_cfunc_wrapper = True
        flags.no_compile = True
        context = cpu_target.target_context
        return compiler.compile_extra(
            cpu_target.typing_context,
            context,
            self._function,
            args=args,
            return_type=None,
            flags=flags,
            locals={},
            library=_PartLibrary(context.codegen(), self._function.__qualname__),
            pipeline_class=_PartCompiler,
        )


class _PartLibrary(JITCodeLibrary):  # type: ignore[misc]  # numba has no types
    """A function's code before any optimisation, to be linked into doors."""

    def add_ir_module(self, ir_module: object) -> None:
        self._final_module = llvm.parse_assembly(str(ir_module))

    def finalize(self) -> None:
        self._finalized = True

    def _get_module_for_linking(self) -> object:
        return self._final_module


class _DoorLibrary(JITCodeLibrary):  # type: ignore[misc]  # numba has no types
    """A door's code with everything behind it."""

    def finalize(self) -> None:
        self._own = {function.name for function in self._final_module.functions if not function.is_declaration}
        reached: dict[object, None] = {}
        waiting: list[Any] = list(self._linking_libraries)  # type: ignore[has-type]  # numba has no types
        while waiting:
            library = waiting.pop()
            if library not in reached:
                reached[library] = None
                if isinstance(library, _PartLibrary):
                    waiting += library._linking_libraries
        self._linking_libraries = list(reached)
        super().finalize()

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        for function in self._final_module.functions:
            if not function.is_declaration and function.name not in self._own:
                function.linkage = "internal"
        manager, builder = self._codegen._module_pass_manager()
        manager.run(self._final_module, builder)


class _Context:
    """Numba's typing context, but that it resolves an operator or function for the same types once."""

    def __init__(self, context: Any, known: dict[object, object]) -> None:
        self._context = context
        self._known = known

    def __getattr__(self, name: str) -> object:
        return getattr(self._context, name)

    def resolve_function_type(self, function: object, args: tuple[object, ...], kws: dict[str, object]) -> object:
        if kws or not isinstance(function, (Dispatcher, Function)):
            return self._context.resolve_function_type(function, args, kws)
        plain = tuple(unliteral(arg) for arg in args)
        if not all(isinstance(arg, (Number, Boolean, CPointer)) for arg in plain):
            return self._context.resolve_function_type(function, args, kws)
        found = self._known.get((function, plain))
        if found is None:
            found = self._known[function, plain] = self._context.resolve_function_type(function, plain, kws)
        return found


_KNOWN: dict[object, object] = {}


@register_pass(mutates_CFG=True, analysis_only=False)
class _Typing(NopythonTypeInference):  # type: ignore[misc]  # numba has no types
    _name = "headrace_typing"

    def run_pass(self, state: Any) -> bool:
        context = state.typingctx
        state.typingctx = _Context(context, _KNOWN)
        try:
            return bool(super().run_pass(state))
        finally:
            state.typingctx = context


@register_pass(mutates_CFG=True, analysis_only=False)
class _PartLowering(NativeLowering):  # type: ignore[misc]  # numba has no types
    """Lowers a function and makes it known to its callers by a key, as it has no address."""

    _name = "headrace_part_lowering"

    def run_pass(self, state: Any) -> bool:
        super().run_pass(state)
        key = object()
        state.targetctx.insert_user_function(key, state.cr.fndesc, [state.library])
        state.cr = state.cr._replace(cfunc=key)
        return True


@register_pass(mutates_CFG=True, analysis_only=False)
class _DoorLowering(NativeLowering):  # type: ignore[misc]  # numba has no types
    _name = "headrace_door_lowering"

    def run_pass(self, state: Any) -> bool:
        state.library = _DoorLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        super().run_pass(state)
        return True


class _PartCompiler(CompilerBase):  # type: ignore[misc]  # numba has no types
    """What a function over numbers and pointers needs of numba's passes."""

    def define_pipelines(self) -> list[PassManager]:
        return [_passes(_PartLowering)]


class _Door(CompilerBase):  # type: ignore[misc]  # numba has no types
    def define_pipelines(self) -> list[PassManager]:
        return [_passes(_DoorLowering)]


def _passes(lowering: type) -> PassManager:
    manager = PassManager("headrace")
    for step in (
        TranslateByteCode,
        FixupArgs,
        IRProcessing,
        ReconstructSSA,
        _Typing,
        PreLowerStripPhis,
        IRLegalization,
        lowering,
        NoPythonBackend,
    ):
        manager.add_pass(step, step.__name__)
    manager.finalize()
    return manager
