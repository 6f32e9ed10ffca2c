import datetime

from google.protobuf import any_pb2 as _any_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Effects(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EFFECTS_UNSPECIFIED: _ClassVar[Effects]
    NOT_STARTED: _ClassVar[Effects]
    NONE: _ClassVar[Effects]
    UNDONE: _ClassVar[Effects]
    PARTIAL: _ClassVar[Effects]
    UNKNOWN: _ClassVar[Effects]
EFFECTS_UNSPECIFIED: Effects
NOT_STARTED: Effects
NONE: Effects
UNDONE: Effects
PARTIAL: Effects
UNKNOWN: Effects

class ClaimRequest(_message.Message):
    __slots__ = ("worker", "methods", "queues", "max", "wait", "claim_id", "lease")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    METHODS_FIELD_NUMBER: _ClassVar[int]
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    CLAIM_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    worker: str
    methods: _containers.RepeatedScalarFieldContainer[str]
    queues: _containers.RepeatedScalarFieldContainer[str]
    max: int
    wait: _duration_pb2.Duration
    claim_id: str
    lease: _duration_pb2.Duration
    def __init__(self, worker: _Optional[str] = ..., methods: _Optional[_Iterable[str]] = ..., queues: _Optional[_Iterable[str]] = ..., max: _Optional[int] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., claim_id: _Optional[str] = ..., lease: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ClaimResponse(_message.Message):
    __slots__ = ("assignments",)
    ASSIGNMENTS_FIELD_NUMBER: _ClassVar[int]
    assignments: _containers.RepeatedCompositeFieldContainer[Assignment]
    def __init__(self, assignments: _Optional[_Iterable[_Union[Assignment, _Mapping]]] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("operation", "epoch", "api", "method", "queue", "parent", "target", "request", "metadata", "response_type", "attempt", "cleanup", "checkpoint", "external_ref", "traceparent", "lease_expire_time", "deadline", "desired")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    API_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_TYPE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    CLEANUP_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_REF_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    LEASE_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    DESIRED_FIELD_NUMBER: _ClassVar[int]
    operation: str
    epoch: int
    api: str
    method: str
    queue: str
    parent: str
    target: str
    request: _any_pb2.Any
    metadata: _any_pb2.Any
    response_type: str
    attempt: int
    cleanup: bool
    checkpoint: bytes
    external_ref: str
    traceparent: str
    lease_expire_time: _timestamp_pb2.Timestamp
    deadline: _timestamp_pb2.Timestamp
    desired: DesiredState
    def __init__(self, operation: _Optional[str] = ..., epoch: _Optional[int] = ..., api: _Optional[str] = ..., method: _Optional[str] = ..., queue: _Optional[str] = ..., parent: _Optional[str] = ..., target: _Optional[str] = ..., request: _Optional[_Union[_any_pb2.Any, _Mapping]] = ..., metadata: _Optional[_Union[_any_pb2.Any, _Mapping]] = ..., response_type: _Optional[str] = ..., attempt: _Optional[int] = ..., cleanup: bool = ..., checkpoint: _Optional[bytes] = ..., external_ref: _Optional[str] = ..., traceparent: _Optional[str] = ..., lease_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., deadline: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., desired: _Optional[_Union[DesiredState, _Mapping]] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("worker", "items", "wait")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    worker: str
    items: _containers.RepeatedCompositeFieldContainer[ReportItem]
    wait: _duration_pb2.Duration
    def __init__(self, worker: _Optional[str] = ..., items: _Optional[_Iterable[_Union[ReportItem, _Mapping]]] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ReportItem(_message.Message):
    __slots__ = ("operation", "epoch", "lease", "metadata", "progress", "checkpoint", "external_ref", "acknowledge_cancel", "gate", "response", "failure", "stopped", "release")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_REF_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGE_CANCEL_FIELD_NUMBER: _ClassVar[int]
    GATE_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    operation: str
    epoch: int
    lease: _duration_pb2.Duration
    metadata: _any_pb2.Any
    progress: Progress
    checkpoint: bytes
    external_ref: str
    acknowledge_cancel: bool
    gate: Gate
    response: _any_pb2.Any
    failure: Failure
    stopped: Stopped
    release: Release
    def __init__(self, operation: _Optional[str] = ..., epoch: _Optional[int] = ..., lease: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., metadata: _Optional[_Union[_any_pb2.Any, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., checkpoint: _Optional[bytes] = ..., external_ref: _Optional[str] = ..., acknowledge_cancel: bool = ..., gate: _Optional[_Union[Gate, _Mapping]] = ..., response: _Optional[_Union[_any_pb2.Any, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., stopped: _Optional[_Union[Stopped, _Mapping]] = ..., release: _Optional[_Union[Release, _Mapping]] = ...) -> None: ...

class Gate(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Release(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Failure(_message.Message):
    __slots__ = ("code", "message", "details", "retryable", "effects")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    EFFECTS_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    details: _containers.RepeatedCompositeFieldContainer[_any_pb2.Any]
    retryable: bool
    effects: Effects
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., details: _Optional[_Iterable[_Union[_any_pb2.Any, _Mapping]]] = ..., retryable: bool = ..., effects: _Optional[_Union[Effects, str]] = ...) -> None: ...

class Stopped(_message.Message):
    __slots__ = ("effects", "message")
    EFFECTS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    effects: Effects
    message: str
    def __init__(self, effects: _Optional[_Union[Effects, str]] = ..., message: _Optional[str] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("percent", "step", "steps", "message")
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    percent: float
    step: int
    steps: int
    message: str
    def __init__(self, percent: _Optional[float] = ..., step: _Optional[int] = ..., steps: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ReportResult]
    def __init__(self, results: _Optional[_Iterable[_Union[ReportResult, _Mapping]]] = ...) -> None: ...

class ReportResult(_message.Message):
    __slots__ = ("operation", "epoch", "error", "desired", "gate_passed", "lease_expire_time")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    DESIRED_FIELD_NUMBER: _ClassVar[int]
    GATE_PASSED_FIELD_NUMBER: _ClassVar[int]
    LEASE_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    operation: str
    epoch: int
    error: ReportError
    desired: DesiredState
    gate_passed: bool
    lease_expire_time: _timestamp_pb2.Timestamp
    def __init__(self, operation: _Optional[str] = ..., epoch: _Optional[int] = ..., error: _Optional[_Union[ReportError, _Mapping]] = ..., desired: _Optional[_Union[DesiredState, _Mapping]] = ..., gate_passed: bool = ..., lease_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ReportError(_message.Message):
    __slots__ = ("code", "reason", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    message: str
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class DesiredState(_message.Message):
    __slots__ = ("action", "reason", "actor", "message", "deadline", "request_time")
    class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ACTION_UNSPECIFIED: _ClassVar[DesiredState.Action]
        CONTINUE: _ClassVar[DesiredState.Action]
        CANCEL: _ClassVar[DesiredState.Action]
        STOP: _ClassVar[DesiredState.Action]
    ACTION_UNSPECIFIED: DesiredState.Action
    CONTINUE: DesiredState.Action
    CANCEL: DesiredState.Action
    STOP: DesiredState.Action
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[DesiredState.Reason]
        CLIENT_CANCEL: _ClassVar[DesiredState.Reason]
        DEADLINE: _ClassVar[DesiredState.Reason]
        SUPERSEDED: _ClassVar[DesiredState.Reason]
        LEASE_LOST: _ClassVar[DesiredState.Reason]
        DONE: _ClassVar[DesiredState.Reason]
        DELETED: _ClassVar[DesiredState.Reason]
    REASON_UNSPECIFIED: DesiredState.Reason
    CLIENT_CANCEL: DesiredState.Reason
    DEADLINE: DesiredState.Reason
    SUPERSEDED: DesiredState.Reason
    LEASE_LOST: DesiredState.Reason
    DONE: DesiredState.Reason
    DELETED: DesiredState.Reason
    ACTION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_TIME_FIELD_NUMBER: _ClassVar[int]
    action: DesiredState.Action
    reason: DesiredState.Reason
    actor: str
    message: str
    deadline: _timestamp_pb2.Timestamp
    request_time: _timestamp_pb2.Timestamp
    def __init__(self, action: _Optional[_Union[DesiredState.Action, str]] = ..., reason: _Optional[_Union[DesiredState.Reason, str]] = ..., actor: _Optional[str] = ..., message: _Optional[str] = ..., deadline: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., request_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class SessionRequest(_message.Message):
    __slots__ = ("open", "report", "slots")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    open: SessionOpen
    report: SessionReport
    slots: SessionSlots
    def __init__(self, open: _Optional[_Union[SessionOpen, _Mapping]] = ..., report: _Optional[_Union[SessionReport, _Mapping]] = ..., slots: _Optional[_Union[SessionSlots, _Mapping]] = ...) -> None: ...

class SessionOpen(_message.Message):
    __slots__ = ("worker", "methods", "queues", "slots", "lease", "held")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    METHODS_FIELD_NUMBER: _ClassVar[int]
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    worker: str
    methods: _containers.RepeatedScalarFieldContainer[str]
    queues: _containers.RepeatedScalarFieldContainer[str]
    slots: int
    lease: _duration_pb2.Duration
    held: _containers.RepeatedCompositeFieldContainer[Held]
    def __init__(self, worker: _Optional[str] = ..., methods: _Optional[_Iterable[str]] = ..., queues: _Optional[_Iterable[str]] = ..., slots: _Optional[int] = ..., lease: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., held: _Optional[_Iterable[_Union[Held, _Mapping]]] = ...) -> None: ...

class Held(_message.Message):
    __slots__ = ("operation", "epoch")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    operation: str
    epoch: int
    def __init__(self, operation: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class SessionReport(_message.Message):
    __slots__ = ("id", "items")
    ID_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    id: int
    items: _containers.RepeatedCompositeFieldContainer[ReportItem]
    def __init__(self, id: _Optional[int] = ..., items: _Optional[_Iterable[_Union[ReportItem, _Mapping]]] = ...) -> None: ...

class SessionSlots(_message.Message):
    __slots__ = ("slots",)
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    slots: int
    def __init__(self, slots: _Optional[int] = ...) -> None: ...

class SessionResponse(_message.Message):
    __slots__ = ("assignments", "desired", "complete", "results")
    ASSIGNMENTS_FIELD_NUMBER: _ClassVar[int]
    DESIRED_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    assignments: _containers.RepeatedCompositeFieldContainer[Assignment]
    desired: _containers.RepeatedCompositeFieldContainer[DesiredUpdate]
    complete: bool
    results: SessionResults
    def __init__(self, assignments: _Optional[_Iterable[_Union[Assignment, _Mapping]]] = ..., desired: _Optional[_Iterable[_Union[DesiredUpdate, _Mapping]]] = ..., complete: bool = ..., results: _Optional[_Union[SessionResults, _Mapping]] = ...) -> None: ...

class DesiredUpdate(_message.Message):
    __slots__ = ("operation", "epoch", "desired")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    DESIRED_FIELD_NUMBER: _ClassVar[int]
    operation: str
    epoch: int
    desired: DesiredState
    def __init__(self, operation: _Optional[str] = ..., epoch: _Optional[int] = ..., desired: _Optional[_Union[DesiredState, _Mapping]] = ...) -> None: ...

class SessionResults(_message.Message):
    __slots__ = ("id", "results")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    id: int
    results: _containers.RepeatedCompositeFieldContainer[ReportResult]
    def __init__(self, id: _Optional[int] = ..., results: _Optional[_Iterable[_Union[ReportResult, _Mapping]]] = ...) -> None: ...
