"""Messages of any protobuf flavour, to and from ``google.protobuf.Any``.

Knows plain protobuf classes, and those of proto-plus, which Google's own clients use, by their shape.
"""

from __future__ import annotations

from typing import Any as Anything
from typing import Optional

from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message

AnyMessage = Anything
"""A protobuf message, a proto-plus message, or an ``any_pb2.Any``."""


def type_name(kind: Anything) -> str:
    """The full name of a message class; ``TypeError`` when it is none."""
    plain = kind.pb() if _is_proto_plus(kind) else kind
    if isinstance(plain, type) and issubclass(plain, Message):
        return str(plain.DESCRIPTOR.full_name)
    raise TypeError(f"{kind!r} is no message class")


def to_any(value: AnyMessage) -> any_pb2.Any:
    """Packs a message; an ``Any`` stays as it is. ``TypeError`` for everything else."""
    if isinstance(value, any_pb2.Any):
        return value
    packed = any_pb2.Any()
    if isinstance(value, Message):
        packed.Pack(value)
    elif _is_proto_plus(type(value)):
        packed.Pack(type(value).pb(value))
    else:
        raise TypeError(f"a {type(value).__name__} is no protobuf message")
    return packed


def from_any(packed: any_pb2.Any, kind: Optional[Anything]) -> AnyMessage:
    """Unpacks into ``kind``; without one the ``Any`` itself. ``ValueError`` when it holds another type."""
    if kind is None:
        return packed
    wanted, found = type_name(kind), packed.type_url.rpartition("/")[2]
    if wanted != found:
        raise ValueError(f"the message is a {found}, not a {wanted}")
    try:
        if _is_proto_plus(kind):
            return kind.deserialize(packed.value)
        return kind.FromString(packed.value)
    except DecodeError as error:
        raise ValueError(f"the message is no {wanted}: {error}") from None


def response_of(value: Anything, response_type: str, kind: Optional[Anything]) -> any_pb2.Any:
    """What a handler returned, as the response. ``TypeError`` when it cannot be one.

    Bytes stand for an encoded message of the declared type, and nothing for ``google.protobuf.Empty``.
    """
    if kind is not None and not isinstance(value, kind):
        raise TypeError(f"the handler returned a {type(value).__name__}, not a {kind.__name__}")
    if isinstance(value, (bytes, bytearray)):
        return any_pb2.Any(type_url=f"type.googleapis.com/{response_type}", value=bytes(value))
    if value is None and response_type == "google.protobuf.Empty":
        return any_pb2.Any(type_url="type.googleapis.com/google.protobuf.Empty")
    try:
        return to_any(value)
    except TypeError as error:
        raise TypeError(f"the handler must return a {response_type}: {error}") from None


def _is_proto_plus(kind: Anything) -> bool:
    return all(hasattr(kind, name) for name in ("pb", "serialize", "deserialize"))
