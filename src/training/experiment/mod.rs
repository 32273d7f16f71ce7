//! Experiments: methods x data sets x training cases x folds x seeds x options, described in one TOML file, run job by job.
//!
//! [`mod@file`] reads the description; [`jobs`] makes jobs of it, each with an `identity` that says what makes its result; [`run`]
//! does those that are missing, one after the other, by means of `work`; [`folder`] says where things lie and who works on
//! what; [`status`] counts.
//!
//! A pre-training or fine-tuning is one job. Its id is a hash of all that decides its result: the resolved plan, the data, the
//! checkpoint it starts from, how it is judged. Names are not in it, nor is what changes nothing (threads, memory, minutes between
//! checkpoints): a file may be reordered, renamed or extended, and no job is done twice. A job's row in the results bears the names
//! that the file gives it when it is next run.
//!
//! Any number of processes may work in one folder: each takes the next job that nobody has locked, and waits where it needs a
//! pre-training that another is at. Processes with folders of their own take a [part](jobs::deal) each; where two parts need one
//! pre-training, both make it, to the same id, and their results unite.

pub mod file;
pub mod folder;
mod identity;
pub mod jobs;
pub mod memory;
pub mod run;
pub mod status;
mod work;

use crate::base::Result;

/// The value of a key, which is made once.
fn once<K: PartialEq, V: Clone>(known: &mut Vec<(K, V)>, key: K, make: impl FnOnce() -> Result<V>) -> Result<V> {
    if let Some((_, value)) = known.iter().find(|(one, _)| *one == key) {
        return Ok(value.clone());
    }
    let value = make()?;
    known.push((key, value.clone()));
    Ok(value)
}
