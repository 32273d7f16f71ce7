//! The progress of a preparation, for a person.

use super::Event;
use crate::base::{Mode, Progress, Result};

/// Runs `work` with the progress of its events on stderr: it is called `what` and counts `unit`s, and each that cannot be used has
/// a line. Where `left_out`, the work goes on without those, and they count as done.
///
/// # Errors
/// Those of `work`.
pub fn with_progress<T>(
    (mode, quiet): (Mode, bool),
    what: &str,
    unit: &str,
    left_out: bool,
    work: impl FnOnce(&mut dyn FnMut(Event)) -> Result<T>,
) -> Result<T> {
    let mut progress: Option<Progress> = None;
    let mut done = 0;
    let result = work(&mut |event| match (event, &mut progress) {
        (Event::Found { scans, done: before }, _) => {
            done = before as u64;
            progress = Some(Progress::new(mode, Some(scans as u64), what).quiet(quiet));
        }
        (Event::Prepared { id, .. }, Some(progress)) => {
            done += 1;
            progress.update(done, &[(unit, id)]);
        }
        (Event::Rejected { source, reason }, Some(progress)) if left_out => {
            done += 1;
            progress.update(done, &[]);
            progress.message(&format!("left out {}: {reason}", source.display()));
        }
        (Event::Rejected { source, reason }, Some(progress)) => {
            progress.message(&format!("{}: {reason}", source.display()));
        }
        // What is found is told first.
        (_, None) => {}
    })?;
    if let Some(progress) = progress {
        progress.finish();
    }
    Ok(result)
}
