//! kvstore: an embedded key-value store. A database is a directory; keys and values are byte
//! strings.
//!
//! Conventions
//!
//! - Status. Functions that can fail return an int32_t, one of the values of kv_status: KV_OK is 0,
//!   outcomes that are not failures are positive, errors are negative. The numbers never change.
//!   kv_strerror() says what a code means, kv_last_error() what exactly went wrong in the calling
//!   thread. Treat a negative code that you do not know as an error: later versions may add some.
//! - Parameters. The handle comes first, then what goes in, then what comes out. Keys and values
//!   are a pointer and a length; NULL with length 0 is the empty string, NULL with another length
//!   is KV_ERR_INVALID. Every byte string is a legal key and a legal value, the empty ones and
//!   those with NUL bytes included. Nothing passed in is kept after the call returns.
//! - Results. An out-parameter that is not NULL is set to NULL or 0 before anything can fail, so it
//!   never holds garbage. An out-parameter that is NULL is KV_ERR_INVALID where its description
//!   does not say otherwise. The out-parameters of one call are different variables.
//! - Memory. What kv_get() and kv_get_many() return is the caller's, who frees it with
//!   kv_free_buf(). Handles go back to the function named in their description. Pointers into a
//!   snapshot, an iterator or a report are valid as long as their functions say, all others are
//!   static.
//! - Threads. A kv_store, a kv_snapshot and a kv_report may be used from any number of threads at
//!   once, a kv_batch and a kv_iter from one at a time. A kv_options must not be changed by one
//!   thread while another uses it.
//! - Processes. One process has a database open for writing; any number may have it open read-only
//!   while none does. After fork() the parent goes on; in the child each call on an inherited
//!   handle is KV_ERR_FORKED and harms nothing. The child opens the database for itself once the
//!   parent has closed it. Files are close-on-exec.
//! - The host. No function panics, aborts, exits, prints, or changes errno. A bug in the library is
//!   KV_ERR_INTERNAL. Any function may return KV_ERR_INTERNAL, and if it does the handle should be
//!   closed.
//!
//! C99 or later, C++11 or later.

// C names are spelled in Rust as they are in C, so that a search finds both.
#![allow(non_camel_case_types)]

// The map, in the order of the header's sections. The text above opens the header, the `//!` text of each file
// its section, and every `///` in these files is written for a reader of the header.
mod error;
mod version;

mod options;
mod store;

mod data;

mod batch;
mod iter;
mod snapshot;

mod progress;
mod upkeep;

mod checkpoint;

mod info;

mod report;
mod totals;

/// What stands between the caller and the engine: pointers, panics, errno.
mod guard;
mod import;
mod salvage;
mod verify;
