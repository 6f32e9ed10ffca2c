//! Which events a history keeps, so that no worker can make one grow without end.

use longhaul_core::{Event, EventKind};

/// Most rows that a history grows to by events that can repeat for ever, such as claims and releases.
/// What can happen only a few times, such as the end, is kept beyond it.
pub const HISTORY_ROWS_MAX: usize = 1_000;

/// The part of it that progress may fill; a worker may report several times a second for hours.
pub const HISTORY_PROGRESS_ROWS_MAX: usize = 200;

/// The events that go into a history which already has `rows` rows.
pub(crate) fn worth_keeping(events: &[Event], rows: usize) -> Vec<Event> {
    events.iter().filter(|event| rows < rows_max(&event.kind)).cloned().collect()
}

fn rows_max(kind: &EventKind) -> usize {
    match kind {
        EventKind::Progressed => HISTORY_PROGRESS_ROWS_MAX,
        EventKind::Claimed { .. }
        | EventKind::LeaseRegained { .. }
        | EventKind::Retrying { .. }
        | EventKind::Released { .. }
        | EventKind::LeaseExpired { .. }
        | EventKind::CancelRepeated { .. } => HISTORY_ROWS_MAX,
        EventKind::Started
        | EventKind::GatePassed
        | EventKind::CancelRequested { .. }
        | EventKind::CancelDelivered
        | EventKind::CancelAcknowledged
        | EventKind::CleanupStarted
        | EventKind::Finished { .. }
        | EventKind::Deleted { .. }
        | EventKind::Detached { .. }
        | EventKind::Forgotten => usize::MAX,
    }
}

#[cfg(test)]
mod tests {
    use longhaul_core::Timestamp;

    use super::*;

    #[test]
    fn progress_fills_a_part_and_the_end_is_always_kept() {
        let at = Timestamp::default();
        let events = [
            Event { at, kind: EventKind::Progressed },
            Event { at, kind: EventKind::Released { worker: "w".into() } },
            Event { at, kind: EventKind::CancelDelivered },
        ];
        let kept = |rows| worth_keeping(&events, rows).len();
        assert_eq!(kept(0), 3);
        assert_eq!(kept(HISTORY_PROGRESS_ROWS_MAX), 2);
        assert_eq!(kept(HISTORY_ROWS_MAX), 1);
        assert_eq!(kept(usize::MAX - 1), 1);
    }
}
