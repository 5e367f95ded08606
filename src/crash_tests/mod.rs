//! Machinery that tries to break what the store promises, on a simulated disk that is as hostile as disks may be.
//!
//! | module | what it tries |
//! |---|---|
//! | `prefix` | crashes at every operation of random workloads, and in the recovery from them: a prefix is left |
//! | `faults` | every call to the system fails in turn: an error code, and nothing is lost |
//! | `tail` | the end of the log torn at each byte; damage before a sync mark is no tear |
//! | `hostile` | files made to deceive: frames and marks in values, endless work |
//! | `corruption` | each bit flipped, files cut, zeroed, gone, of an earlier time: an error or the right answer |
//! | `corpus` | the inputs that coverage-guided fuzzing has kept |
//! | `decoders` | mutated files: values or errors |
//! | `checkpoint` | checkpoints interrupted at every operation; both sides live on independently |
//! | `sharing` | the files that checkpoints share, and those that they must not |
//! | `tombstones` | what was deleted stays deleted, whatever is compacted |
//! | `linearizability` | threads and compaction: each key behaves as if one thing happened after the other |
//! | `regressions` | what was found once, each as short as it could be made |
//!
//! `history` knows what may be found after a crash, `workload` makes the work that is interrupted.

mod checkpoint;
mod corpus;
mod corruption;
mod decoders;
mod faults;
mod history;
mod hostile;
mod linearizability;
mod prefix;
mod regressions;
mod sharing;
mod tail;
mod tombstones;
mod workload;
