//! What every driver must do, told as tests that take the driver as an argument.
//!
//! Rules about streams and the store are tried with a scripted machine, which says exactly what a node could say and
//! writes down what it is told; the rest runs real nodes on a store in memory. No test waits for a time to pass: each
//! waits for something to happen, with a failsafe that only a broken driver meets.

pub mod child;
pub mod datagrams;
pub mod hostile;
pub mod memory;
pub mod nodes;
pub mod scripted;
pub mod store;
pub mod streams;

use peerlink_core::api::{Loader, Store};
use peerlink_drivers::{Events, Handle, Machine, StartError};
use std::net::SocketAddr;
use std::time::Duration;

/// Nothing that works takes this long.
pub const FAILSAFE: Duration = Duration::from_secs(60);

/// A way to run a machine.
pub trait DriverUnderTest {
    /// # Errors
    /// As the driver says.
    fn start<M, S, L>(
        machine: M,
        store: S,
        loader: L,
        listen: &[SocketAddr],
    ) -> Result<(Handle, Events), StartError>
    where
        M: Machine,
        S: Store + 'static,
        L: Loader + 'static;
}

/// Loopback, any port.
#[must_use]
pub fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// One test for each rule, on this driver. Names are at the root, so that a test can run itself in a child process.
#[macro_export]
macro_rules! conformance {
    ($driver:ty) => {
        $crate::conformance!($driver, streams:
            partial_writes_go_on_and_are_told_once_whole,
            a_budget_of_zero_stops_reading_until_ready,
            what_came_before_a_close_is_read_first,
            a_peer_that_resets_during_a_write_ends_the_stream_once,
            a_close_that_flushes_sends_everything_and_ends,
            a_close_that_aborts_ends_at_once,
            a_flush_that_nobody_reads_ends_in_time,
            a_shutdown_sends_what_was_handed_over,
            a_refused_dial_is_told,
            a_dial_into_nothing_times_out,
            a_dial_that_is_closed_ends_once,
            a_storm_of_connections_is_accepted_whole,
            a_flood_on_one_stream_does_not_starve_another,
            both_families_share_a_port,
            a_taken_port_is_an_error,
            a_deadline_brings_a_tick_and_not_before,
            a_machine_that_panics_is_gone_not_silent,
            a_machine_that_is_stuck_does_not_spin,
            handles_that_are_dropped_stop_the_node,
            running_out_of_descriptors_only_delays,
        );
        $crate::conformance!($driver, datagrams:
            datagrams_come_and_go_where_the_node_listens,
            a_port_that_is_taken_for_datagrams_keeps_no_node_from_starting,
            what_cannot_be_sent_is_lost_alone,
            a_flood_of_datagrams_starves_no_stream,
            a_flood_of_streams_starves_no_datagram,
            who_listens_nowhere_has_datagrams,
        );
        $crate::conformance!($driver, store:
            a_stuck_disk_stops_nothing_and_what_queued_shares_one_commit,
            a_load_does_not_wait_for_a_later_batch,
            a_failed_commit_ends_promises_and_nothing_else,
            what_queued_behind_a_failed_commit_fails_too,
            shutdown_commits_and_closes_the_store_first,
            a_store_that_panics_is_gone_not_silent,
        );
        $crate::conformance!($driver, nodes:
            two_nodes_talk_and_go_on_after_a_restart,
            two_nodes_talk_by_datagrams,
            a_node_with_datagrams_reaches_one_without,
            a_failed_store_still_refuses_and_stops,
        );
        $crate::conformance!($driver, hostile:
            garbage_costs_bounded_memory_and_nothing_else,
            slow_bytes_cost_bounded_memory_and_nothing_else,
            endless_bytes_cost_bounded_memory_and_nothing_else,
        );
    };
    ($driver:ty, $area:ident: $($rule:ident),* $(,)?) => {
        $(
            #[test]
            fn $rule() {
                $crate::conformance::$area::$rule::<$driver>();
            }
        )*
    };
}
