//! What every back end must do: plain functions over a [`Store`] that a back end's tests run in full.
//!
//! A back end gives a way to open a fresh store with a listener; everything else is here.

pub(crate) mod basics;
pub(crate) mod due;
pub(crate) mod families;
pub(crate) mod lists;
pub(crate) mod races;
pub(crate) mod rivals;
pub(crate) mod world;

use std::sync::Arc;

use crate::{Listener, Store};

/// Opens a fresh store.
pub(crate) type Open = dyn Fn(Arc<dyn Listener>) -> Arc<dyn Store> + Send + Sync;

/// One test per claim, for one back end: `conformance!(open)`, where `open` makes a store in a folder that
/// goes after the test: `fn(&Path, Arc<dyn Listener>) -> Arc<dyn Store>`.
macro_rules! conformance {
    ($open:expr => $($module:ident: $($claim:ident)+;)+) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().to_owned();
                let open = move |listener| $open(&path, listener);
                crate::conformance::$module::$claim(&open).await;
            }
        )+)+
    };
    ($open:expr) => {
        crate::conformance::conformance! { $open =>
            basics:
                a_started_operation_can_be_read
                an_absent_operation_is_decided_as_none
                an_unchanged_decision_writes_nothing_and_is_still_told
                a_refusal_changes_nothing
                every_field_survives
                a_name_is_given_once
                a_request_id_leads_to_the_first_operation
                a_request_id_belongs_to_its_api_and_parent
                a_request_id_moves_on_when_its_window_is_over
                a_tombstone_becomes_the_operation_that_meets_it
                a_forgotten_operation_leaves_nothing_behind
                a_forgotten_name_can_be_used_again
                history_is_kept_in_order_and_paged
                history_is_bounded_but_keeps_the_end
                a_large_payload_survives
                a_panicking_decision_harms_nobody_else
                counts_follow_every_change
                the_token_key_stays
                many_are_read_as_one_by_one
                a_closed_store_refuses_writes;
            due:
                the_longest_claimable_is_claimed_first
                a_claim_filter_takes_only_its_own
                a_claim_waits_for_not_before
                timers_are_due_in_order
                refused_ones_are_skipped
                a_long_sweep_reaches_all_once
                parallel_claims_never_share
                a_claim_takes_no_more_bytes_than_it_may
                a_claim_id_leads_to_the_leases_it_was_given
                hints_tell_what_became_claimable;
            families:
                a_child_starts_only_with_its_parents_leave
                a_repeated_start_of_a_child_needs_no_leave
                children_are_listed_in_the_order_of_their_age
                those_left_behind_by_a_cancel_are_found_until_none_is_left
                a_cancelled_parent_stays_until_its_children_have_followed
                no_child_slips_past_the_cancel_of_its_parent;
            lists:
                pages_are_newest_first
                a_dash_lists_over_parents
                done_and_deleted_ones_are_told_apart
                pages_hold_still_while_operations_come_and_go
                apis_are_never_mixed;
            races:
                updates_of_one_operation_are_linear
                starts_under_one_request_id_make_one_operation
                the_listener_hears_each_operation_in_order
                a_read_sees_every_answered_write
                an_abandoned_write_is_still_made;
            rivals:
                a_start_is_refused_while_another_is_under_way_on_its_resource
                a_newer_start_supersedes_what_is_under_way_on_its_resource
                parallel_starts_on_one_resource_leave_one;
        }
    };
}

pub(crate) use conformance;
