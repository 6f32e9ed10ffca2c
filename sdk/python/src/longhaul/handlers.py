"""What a worker author writes: functions marked with the methods that they serve."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, Optional, TypeVar

from .messages import type_name

Function = TypeVar("Function", bound=Callable[..., Any])
_MARK = "__longhaul__"


@dataclasses.dataclass(frozen=True)
class Handler:
    """One marked function."""

    methods: tuple[str, ...]
    function: Callable[..., Any]
    cleanup: Optional[Callable[..., Any]]
    request: Optional[Any]
    response: Optional[Any]


def worker(
    *methods: str,
    request: Optional[Any] = None,
    response: Optional[Any] = None,
    cleanup: Optional[Callable[..., Any]] = None,
) -> Callable[[Function], Function]:
    """Marks a function as the worker of methods, given by their full names.

    The function is called as ``function(ctx, request)`` and returns the method's response. An ``async
    def`` gets a :class:`~longhaul.Context` and is interrupted by ``asyncio.CancelledError``; a plain
    function runs in a thread of its own with a :class:`~longhaul.SyncContext`, and must look at
    ``ctx.cancelled`` by itself.

    ``request`` is the class to read the request into, and ``response`` the one that must be returned;
    without them both are ``google.protobuf.Any``. ``cleanup`` is called like the function itself, after
    an attempt that stopped nobody knows where, for methods that have a cleanup; it is not cancelled by
    clients, and returns the effects, or nothing when everything was undone.
    """
    if not methods or not all(isinstance(method, str) and "." in method for method in methods):
        raise TypeError('give full names of methods, as in @worker("acme.v1.Videos.Transcode")')
    for kind in (request, response):
        if kind is not None:
            type_name(kind)

    def mark(function: Function) -> Function:
        handler = Handler(methods, function, cleanup, request, response)
        setattr(function, _MARK, (*getattr(function, _MARK, ()), handler))
        return function

    return mark


def handlers_of(functions: tuple[Callable[..., Any], ...]) -> dict[str, Handler]:
    """The handler of each method. ``TypeError`` for an unmarked function, or two for one method."""
    found: dict[str, Handler] = {}
    for function in functions:
        marks: tuple[Handler, ...] = getattr(function, _MARK, ())
        if not marks:
            raise TypeError(f"{function!r} is not marked with @longhaul.worker(..)")
        for handler in marks:
            # A method of an object carries the mark of the plain function that it is bound to.
            handler = dataclasses.replace(handler, function=function)
            for method in handler.methods:
                if method in found:
                    raise TypeError(f"two functions serve {method}")
                found[method] = handler
    if not found:
        raise TypeError("give at least one function that is marked with @longhaul.worker(..)")
    return found


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine."""
    call = getattr(function, "__call__", None)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)
