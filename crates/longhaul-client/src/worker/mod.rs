//! Doing the work that Longhaul hands out.
