"""The messages of tests/library, and the names of its methods."""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

IMPORT = "example.library.v1.Library.ImportBooks"
MOVE = "example.library.v1.Library.MoveBooks"
COUNT = "example.library.v1.Library.CountBooks"

_FIELD = descriptor_pb2.FieldDescriptorProto
_MESSAGES = {
    "ImportBooksRequest": [("source", _FIELD.TYPE_STRING)],
    "ImportBooksResponse": [("books", _FIELD.TYPE_INT32)],
    "ImportBooksMetadata": [("books_so_far", _FIELD.TYPE_INT32), ("requested_cancellation", _FIELD.TYPE_BOOL)],
}


def _make() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(
        name="example/library/v1/library.proto", package="example.library.v1", syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields, start=1):
            message.field.add(name=field, number=number, type=kind, label=_FIELD.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _message(name: str) -> type:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"example.library.v1.{name}"))


_POOL = _make()
Request = _message("ImportBooksRequest")
Response = _message("ImportBooksResponse")
Metadata = _message("ImportBooksMetadata")
