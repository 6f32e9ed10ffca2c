//! Hash tables keyed by chance at each start.
//!
//! The standard hasher took an eighth of the writer's time. This one resists an attacker less; but names are
//! made by the server, and texts that collide all the same only cost a comparison each.

use std::collections::{HashMap, HashSet};

pub(super) use foldhash::fast::RandomState;

pub(super) type Map<K, V> = HashMap<K, V, RandomState>;
pub(super) type Set<T> = HashSet<T, RandomState>;
