//! Machinery that tries to break what the store promises, on a simulated disk that is as hostile as disks may be.
//!
//! | module | what it tries |
//! |---|---|
//! | `prefix` | crashes at every operation of random workloads, and in the recovery from them: a prefix is left |
//! | `faults` | every call to the system fails in turn: an error code, and nothing is lost |
//! | `regressions` | what was found once, each as short as it could be made |
//!
//! `history` knows what may be found after a crash, `workload` makes the work that is interrupted.

mod faults;
mod history;
mod prefix;
mod regressions;
mod workload;
