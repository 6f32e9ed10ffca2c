//! System parameters: what a caller may say about any call, beside the request itself.
