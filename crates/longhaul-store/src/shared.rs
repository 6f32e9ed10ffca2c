//! What servers on one store tell each other through it: that one of them is there. A store of one server
//! needs none of it.

use std::time::Duration;

use longhaul_core::Timestamp;

/// From which span on it counts as an outage that no server said it was there. Each says so twice a second;
/// nobody may end a lease without having said so within this span.
pub const OUTAGE_MIN: Duration = Duration::from_secs(2);

/// What a server learns by saying that it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// The number of the last outage of all servers, until somebody says that leases were given their time
    /// back; every server hears of it until then.
    pub outage: Option<u64>,
    /// What the store's own clock says; `None` where it has none.
    pub clock: Option<Timestamp>,
}
