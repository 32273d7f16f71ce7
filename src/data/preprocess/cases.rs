//! The cases of a labelled data set, several at once; one that fails does not stop the others.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Instant;

use super::{Event, pool};
use crate::base::{Error, Result};
use crate::data::sources::{RawCase, RawDataset};

/// Does `work` for each of these cases of a data set, by its number, and hands what it gives to `done`, which returns the voxels
/// that an event tells of, beside the file that `source` names. A case that fails does not stop the others, but is an error in the
/// end, which says that it cannot be `treated` so (`read`).
///
/// # Errors
/// A case fails; or the outer error of `work`, which stops all of them.
pub fn each<R: Send>(
    raw: &RawDataset,
    cases: &[&RawCase],
    (treated, source): (&str, fn(&RawCase) -> &PathBuf),
    work: impl Fn(usize) -> Result<Result<R>> + Sync,
    done: &mut dyn FnMut(usize, R) -> [usize; 3],
    progress: &mut dyn FnMut(Event),
) -> Result<()> {
    let numbers: Vec<usize> = (0..cases.len()).collect();
    let timed = |&n: &usize| {
        let start = Instant::now();
        // What lies behind the reader is other people's code and other people's files.
        let result = catch_unwind(AssertUnwindSafe(|| work(n))).unwrap_or_else(|_| {
            let cause = "the program failed on this case (see the message above)";
            Ok(Err(Error::file(&cases[n].label, cause, "Please report this")))
        });
        (n, start.elapsed(), result)
    };
    let mut failed: Vec<(&str, Error)> = Vec::new();
    pool::each(&numbers, timed, &mut |(n, took, result)| {
        let (id, source) = (&cases[n].id, source(cases[n]).clone());
        progress(match result? {
            Ok(result) => Event::Prepared { id: id.clone(), source, shape: done(n, result), took },
            Err(error) => {
                let reason = error.to_string();
                failed.push((id, error));
                Event::Rejected { source, reason }
            }
        });
        Ok(())
    })?;
    failed.sort_by_key(|f| f.0);
    let (failures, all) = (failed.len(), raw.cases.len());
    match failed.into_iter().next() {
        None => Ok(()),
        Some((_, error)) if failures == 1 => Err(error),
        Some((id, error)) => {
            let cause = format!("{failures} of its {all} cases cannot be {treated}; the first, {id}: {error}");
            Err(Error::file(&raw.folder, cause, "Correct them, or leave them out, and run the command again"))
        }
    }
}
