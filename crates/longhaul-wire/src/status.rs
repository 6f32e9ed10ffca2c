//! An error in the words of each wire: `google.rpc.Status`, an HTTP body, gRPC trailers.
