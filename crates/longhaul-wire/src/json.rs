//! Protobuf JSON, both ways.
