//! Reports: what looking through a database or a log found.
//!
//! A report lists problems, each with the file, the offset in it, and what is wrong there. The
//! first 10,000 are kept one by one; kv_report_totals() counts all of them, and what else there
//! was.

use std::ffi::{CString, c_char};
use std::ptr;

use super::error::kv_status;
use super::guard::{guard, null, object, out, preserve_errno, try_box};
use crate::Report;
use crate::error::{Error, Result};
use crate::report::Totals;

/// What was found.
///
/// Made by kv_verify(), kv_salvage(), kv_import() and the functions like them, freed with
/// kv_report_free(). It never changes and depends on no store: it may be used from any number of
/// threads at once, and after the store is closed.
pub struct kv_report {
    problems: Vec<(CString, u64, CString)>,
    pub(super) totals: Totals,
}

/// The number of problems that kv_report_problem() tells of. 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_report_len(report: *const kv_report) -> usize {
    // SAFETY: NULL or a report that has not been freed, says the header.
    unsafe { report.as_ref() }.map_or(0, |report| report.problems.len())
}

/// Tells of the problem of number `index`, from 0 on.
///
/// `*file` becomes the name of the file (in kv_import(): its path as it was given), `*offset` where
/// in the file, `*what` what is wrong there, in English. Each of the three may be NULL if it is not
/// wanted. The strings belong to the report and stay valid until it is freed. If the result is not
/// KV_OK they are NULL, and `*offset` is 0.
///
/// @return
/// - KV_OK
/// - KV_NOT_FOUND: there are no more.
/// - KV_ERR_INVALID: `report` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_report_problem(
    report: *const kv_report,
    index: usize,
    file: *mut *const c_char,
    offset: *mut u64,
    what: *mut *const c_char,
) -> i32 {
    // SAFETY: NULL or the caller's variables.
    let (file, offset, what) = unsafe { (out(file, ptr::null()), out(offset, 0), out(what, ptr::null())) };
    guard(|| {
        // SAFETY: NULL or a report that has not been freed, says the header.
        let report = unsafe { object(report, "report") }?;
        let Some(problem) = report.problems.get(index) else { return Ok(kv_status::KV_NOT_FOUND) };
        if let Some(file) = file {
            *file = problem.0.as_ptr();
        }
        if let Some(offset) = offset {
            *offset = problem.1;
        }
        if let Some(what) = what {
            *what = problem.2.as_ptr();
        }
        Ok(kv_status::KV_OK)
    })
}

/// Frees a report, and the strings that kv_report_problem() has given out. NULL is fine. May be
/// called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kv_report_free(report: *mut kv_report) {
    if !report.is_null() {
        // SAFETY: not NULL, made by `give`, and not used afterwards, says the header.
        preserve_errno(|| drop(unsafe { Box::from_raw(report) }));
    }
}

/// Hands a report to the caller, if it is wanted. The status is that of its verdict: the report is there also if that
/// is an error.
pub(super) fn give(report: Report, target: Option<&mut *mut kv_report>) -> Result<kv_status> {
    if let Some(target) = target {
        let mut problems = Vec::new();
        problems.try_reserve_exact(report.problems.len()).map_err(|_| Error::no_memory("a report"))?;
        problems.extend(report.problems.iter().map(|p| (text(&p.file), p.offset, text(&p.what))));
        let found = kv_report { problems, totals: report.totals.clone() };
        *target = Box::into_raw(try_box(found, "a report")?);
    }
    report.verdict()?;
    Ok(kv_status::KV_OK)
}

fn text(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

/// What a report counts, if it is there.
pub(super) fn totals_of(report: Option<&kv_report>) -> Result<&Totals> {
    report.map(|report| &report.totals).ok_or_else(|| null("report"))
}
