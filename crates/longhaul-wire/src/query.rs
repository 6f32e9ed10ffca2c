//! Binds the path, the query and the body of an HTTP request to its message.
