//! Between a session and a checkpoint, and between a run folder and its checkpoints.

use super::checkpoint;
use super::{BEST, Checkpoint, FINAL, LATEST, PREPROCESSING, Tensor, WeightFile};
use crate::base::address::local;
use crate::base::{Error, Result};
use crate::compute::device::{Gpu, KernelTable};
use crate::compute::graph::Session;
use crate::tasks::Plan;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Weights, and momentum of the trained parameters, from the device.
///
/// # Errors
/// The device cannot be read from.
pub fn parameters_of(session: &Session) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
    let (mut weights, mut momentum) = (Vec::new(), Vec::new());
    for (id, p) in session.parameters.list.iter().enumerate() {
        let tensor = |data| Tensor { name: p.name.clone(), shape: p.shape.clone(), data };
        weights.push(tensor(session.weight(id)?));
        if p.trained {
            momentum.push(tensor(session.momentum(id)?));
        }
    }
    Ok((weights, momentum))
}

/// Weights (and momentum, where the session has it) from a checkpoint. Every parameter must be there in its shape.
///
/// # Errors
/// One of them is not there, or has another shape.
pub fn set_parameters(session: &Session, checkpoint: &Checkpoint) -> Result<()> {
    for (id, p) in session.parameters.list.iter().enumerate() {
        let of_it = |t: &&Tensor| t.name == p.name && t.shape == p.shape;
        let weight = checkpoint.weights.iter().find(of_it).ok_or_else(|| {
            let what = format!("the checkpoint has no tensor {} of shape {:?}", p.name, p.shape);
            Error::plan(what, "It belongs to another network")
        })?;
        session.set_weight(id, &weight.data);
        if let Some(momentum) = checkpoint.momentum.iter().find(of_it) {
            session.set_momentum(id, &momentum.data);
        }
    }
    Ok(())
}

/// Key of the choice of kernels in a checkpoint's metadata.
const KERNELS: &str = "kernels";

/// Notes which kernels were chosen by measurement: others add in another order.
pub fn save_kernels(gpu: &Gpu, extra: &mut BTreeMap<String, String>) {
    let measured = gpu.kernels().measured;
    if !measured.is_empty() {
        extra.insert(KERNELS.into(), serde_json::to_string(&measured).unwrap_or_default());
    }
}

/// Takes the kernels that a run started with, whatever was measured since.
fn restore_kernels(gpu: &Gpu, checkpoint: &Checkpoint) {
    let text = checkpoint.extra.get(KERNELS);
    let measured = text.and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default();
    gpu.set_kernels(KernelTable { measured, ..KernelTable::default() });
}

/// Checkpoints of a folder, the first that is there being meant: of a run of this program, of nnU-Net's and nnssl's trainings, and
/// of folders on the Hugging Face hub.
const MEANT: [&str; 6] = [BEST, LATEST, FINAL, "checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth"];

/// The checkpoint file that a path means: itself, or the best (else the latest) of a run folder, or the last of a folder of nnU-Net
/// or nnssl.
///
/// # Errors
/// The folder has no checkpoint, or the path is an address.
pub fn checkpoint_of(path: &Path) -> Result<PathBuf> {
    local(path)?;
    if !path.is_dir() {
        return Ok(path.to_path_buf());
    }
    if let Some(found) = MEANT.iter().map(|name| path.join(name)).find(|p| p.exists()) {
        return Ok(found);
    }
    let folds = std::fs::read_dir(path).map_err(Error::io("read", path))?.flatten().map(|entry| entry.path());
    let of_fold = |folder: &PathBuf| MEANT.iter().map(|name| folder.join(name)).find(|p| p.exists());
    let mut folds: Vec<PathBuf> = folds.filter_map(|folder| of_fold(&folder)).collect();
    folds.sort();
    let remedy = match &folds[..] {
        [] => format!("Name a run folder of `spark3d pretrain` with {LATEST}, or a checkpoint file"),
        list => {
            let list: Vec<String> = list.iter().map(|p| p.display().to_string()).collect();
            format!("Name one of the checkpoints in its folders: {}", list.join(", "))
        }
    };
    Err(Error::file(path, "no checkpoint in this folder", remedy))
}

/// The error of a checkpoint whose plan is refused with this one.
pub fn of_another_version(path: &Path, error: Error) -> Error {
    let why = match error {
        Error::Plan { what, .. } => what,
        other => other.to_string(),
    };
    let cause = format!("its plan is not understood: {why}; it was written by another, perhaps newer version");
    Error::file(path, cause, "Use the program version that wrote it, or a newer one")
}

/// The plan of the pre-training that wrote a checkpoint; none of a checkpoint that no pre-training of this program wrote.
///
/// # Errors
/// The plan is of another version.
pub fn pretraining_plan(file: &WeightFile) -> Result<Option<Plan>> {
    let text = file.beside(&["plan"]);
    let Some(text) = text.as_ref().and_then(|v| v.as_str()) else { return Ok(None) };
    match Plan::parse(text) {
        Ok(plan) => Ok(Some(plan)),
        // Fine-tunings have plans of another kind, and none of these settings.
        Err(error) if file.beside(&[&format!("extra.{PREPROCESSING}")]).is_some() => {
            Err(of_another_version(file.path(), error))
        }
        Err(_) => Ok(None),
    }
}

/// The checkpoint that a run resumes from, if there is one, with its kernels: the latest, or that of the end. The plan must be the
/// same, or what went before would not be what it says: `differences` tells how it differs from that of the checkpoint.
///
/// # Errors
/// The checkpoint cannot be read, is of another plan, or has values that are not finite; or `differences` fails; or the run cannot
/// be resumed.
pub fn resume_point(
    gpu: &Gpu,
    run: &Path,
    differences: impl FnOnce(&Checkpoint) -> Result<Vec<String>>,
) -> Result<Option<Checkpoint>> {
    let Some(path) = [LATEST, FINAL].map(|name| run.join(name)).into_iter().find(|path| path.exists()) else {
        if run.join(BEST).exists() {
            let cause = format!("it holds a training that cannot be resumed: there is {BEST} and no {LATEST}");
            return Err(Error::file(run, cause, "Give another -o for a new run, or remove the folder"));
        }
        return Ok(None);
    };
    let found = checkpoint::load(&path)?;
    let mut differences = differences(&found).map_err(|e| of_another_version(&path, e))?;
    // How often it is saved does not change a run.
    differences.retain(|key| !key.starts_with("train.checkpoint_minutes "));
    if !differences.is_empty() {
        return Err(Error::file(
            &path,
            format!("this run was started with another plan: {} (then / now)", differences.join("; ")),
            "Give the same plan to go on, or another -o for a new run",
        ));
    }
    let found = found.finite(&path)?;
    restore_kernels(gpu, &found);
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_goes_on_with_the_kernels_it_started_with() {
        let gpu = Gpu::open("auto").expect("an adapter: run `sh tests/run.sh`");
        let measured: BTreeMap<_, _> = [("forward".to_string(), "direct".to_string())].into();
        gpu.set_kernels(KernelTable { measured: measured.clone(), ..KernelTable::default() });
        let mut checkpoint = Checkpoint::default();
        save_kernels(&gpu, &mut checkpoint.extra);
        gpu.set_kernels(KernelTable::default());
        restore_kernels(&gpu, &checkpoint);
        assert_eq!(gpu.kernels().measured, measured);
        // A run from before anything was measured keeps the defaults.
        restore_kernels(&gpu, &Checkpoint::default());
        assert!(gpu.kernels().measured.is_empty());
    }
}
