//! Models and checkpoints of this program as nnU-Net and PyTorch have them, and the reverse; and data sets of the Medical
//! Segmentation Decathlon as nnU-Net has them ([`convert_task`]).
//!
//! Both lay out a model in the same way: `plans.json`, `dataset.json` and `fold_*` with checkpoints. What differs is the file of
//! a checkpoint. `read` takes what there is to know from either kind, `torch` and `native` write it as the other.

mod decathlon;
mod native;
mod read;
mod torch;

pub use decathlon::{Converted, convert_task, is_task};

use std::path::{Path, PathBuf};

use clap::Args;

use crate::base::output::IN_THE_WAY;
use crate::base::{Error, Result, write_atomic};
use crate::formats::nnunet::{self, other_than, read_json};
use crate::inference::adaptation;
use crate::inference::predict::model::{DATASET, PLANS, SegmentationModel, folds};
use crate::inference::weights::{WeightFile, checkpoint_of};

use read::Content;

/// The checkpoints of a fold that are models; `latest` is one of a training that is resumed.
const CHECKPOINTS: [&str; 2] = ["final", "best"];
const INPUT_REMEDY: &str = "Name a run folder of `spark3d finetune`, nnU-Net's model folder (plans.json, dataset.json, fold_*), a \
                            checkpoint (.safetensors, .pth), or a task of the Medical Segmentation Decathlon";

/// What is converted, and where it goes.
#[derive(Args)]
pub struct Options {
    /// A run of `spark3d finetune`, nnU-Net's model folder, a checkpoint (.safetensors, .pth), its folder on the Hugging Face hub, or a
    /// Decathlon task's folder
    pub input: PathBuf,
    /// The folder or checkpoint to write; a checkpoint's ending says what it becomes, a data set is called such as
    /// Dataset004_Hippocampus
    pub out: PathBuf,
    /// Replace what is there
    #[arg(long)]
    pub overwrite: bool,
}

/// What a checkpoint is turned into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Torch,
    Native,
}

impl Kind {
    fn of(file: &WeightFile) -> Self {
        if file.is_torch() { Kind::Torch } else { Kind::Native }
    }

    fn other(self) -> Self {
        match self {
            Kind::Torch => Kind::Native,
            Kind::Native => Kind::Torch,
        }
    }

    /// The usual ending of its files.
    fn ending(self) -> &'static str {
        match self {
            Kind::Torch => "pth",
            Kind::Native => "safetensors",
        }
    }

    fn write(self, path: &Path, content: &Content) -> Result<()> {
        match self {
            Kind::Torch => torch::write(path, content),
            Kind::Native => native::write(path, content),
        }
    }
}

/// Converts `options.input`, a folder or a file, and calls `written` with each file and what it is. Returns the name that nnU-Net
/// would give the folder, where it has another one.
///
/// # Errors
/// The input is neither a model nor a checkpoint or cannot be read; the output is of the same kind, or is there already.
pub fn convert(options: &Options, written: &mut dyn FnMut(&Path, &str)) -> Result<Option<String>> {
    let input = &options.input;
    std::fs::metadata(input).map_err(Error::io("read", input))?;
    let exists = match std::fs::read_dir(&options.out) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => options.out.exists(),
    };
    if exists && !options.overwrite {
        let remedy = "Name another output, or replace it by --overwrite";
        return Err(Error::file(&options.out, "it is there already", remedy));
    }
    if exists && let Some(kind) = not_replaced(&options.out) {
        let what = if input.is_dir() { "model folder" } else { "checkpoint" };
        return Err(Error::file(&options.out, format!("it is {kind}, and no {what} that can be replaced"), IN_THE_WAY));
    }
    match input.is_dir() {
        // A folder of the Hugging Face hub is that of one checkpoint.
        true if input.join(adaptation::FILE).is_file() => file(&checkpoint_of(input)?, &options.out, written),
        true => folder(options, written),
        false => file(input, &options.out, written),
    }
}

/// What an output is, where it is neither a model folder nor a checkpoint.
fn not_replaced(out: &Path) -> Option<String> {
    if !out.is_dir() {
        return WeightFile::open(out).is_err().then(|| "another file".into());
    }
    // A conversion that was stopped has left folds alone.
    let model = other_than(nnunet::PLANS, &out.join(PLANS)).is_none() || known_folds(out).is_ok_and(|f| !f.is_empty());
    match (out.join("imagesTr").is_dir(), model) {
        (true, _) => Some("a data set".into()),
        (false, true) => None,
        (false, false) => Some("a folder of other files".into()),
    }
}

fn file(input: &Path, out: &Path, written: &mut dyn FnMut(&Path, &str)) -> Result<Option<String>> {
    let kind = match out.extension().and_then(|e| e.to_str()) {
        Some("pth" | "pt") => Kind::Torch,
        Some("safetensors") => Kind::Native,
        _ => {
            let cause = "a converted checkpoint ends in .pth or .safetensors";
            return Err(Error::file(out, cause, "Name the output with one of the two endings"));
        }
    };
    let file = WeightFile::open(input)?;
    if Kind::of(&file) == kind {
        let cause = format!("it is a checkpoint of the same kind as {} already", out.display());
        let remedy = format!("Copy it, or name an output that ends in .{}", kind.other().ending());
        return Err(Error::file(input, cause, remedy));
    }
    let content = Content::of(&file, None)?;
    kind.write(out, &content)?;
    written(out, &content.describe());
    Ok(None)
}

/// A checkpoint within a model folder.
struct Checkpoint {
    fold: String,
    name: &'static str,
    path: PathBuf,
}

fn folder(options: &Options, written: &mut dyn FnMut(&Path, &str)) -> Result<Option<String>> {
    let (input, out) = (&options.input, &options.out);
    if out.is_file() {
        let cause = "it is a file, and a model is a folder";
        return Err(Error::file(out, cause, "Name a folder as the output, or a checkpoint as the input"));
    }
    let (checkpoints, kind) = checkpoints(input)?;
    let target = |c: &Checkpoint| checkpoint_path(out, &c.fold, c.name, kind.other());
    let targets: Vec<PathBuf> = checkpoints.iter().map(target).collect();
    nothing_else(out, &targets)?;

    // Everything that is read in a moment is looked at before anything is written.
    let open = |c: &Checkpoint| SegmentationModel::open(input, std::slice::from_ref(&c.fold), c.name);
    let models = checkpoints.iter().map(open).collect::<Result<Vec<_>>>()?;
    let mut usual_name = None;
    for ((checkpoint, model), path) in checkpoints.iter().zip(&models).zip(&targets) {
        let Some((_, file)) = model.folds.first() else { continue };
        let content = Content::of(file, Some((model, &checkpoint.fold)))?;
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        }
        kind.other().write(path, &content)?;
        written(path, &content.describe());
        usual_name = Some(format!("nnUNetTrainer__{}__{}", model.plans.plans_name, model.configuration.name));
    }
    // Last: without them the folder is no model, so that half a one is never taken for a whole.
    for name in [DATASET, PLANS] {
        let json = read_json(&input.join(name))?;
        let path = out.join(name);
        write_atomic(&path, format!("{json:#}\n").as_bytes())?;
        written(&path, "copied");
    }
    let named = out.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.split("__").count() == 3);
    Ok(usual_name.filter(|_| kind == Kind::Native && !named))
}

fn checkpoint_path(folder: &Path, fold: &str, name: &str, kind: Kind) -> PathBuf {
    folder.join(format!("fold_{fold}")).join(format!("checkpoint_{name}.{}", kind.ending()))
}

/// The checkpoints of a model folder, and the one kind they all are.
fn checkpoints(folder: &Path) -> Result<(Vec<Checkpoint>, Kind)> {
    let bad = |cause: String, remedy: &str| Err(Error::file(folder, cause, remedy));
    for name in [PLANS, DATASET] {
        if !folder.join(name).is_file() {
            return bad(format!("there is no {name}"), INPUT_REMEDY);
        }
    }
    let mut found: [Vec<Checkpoint>; 2] = Default::default();
    for fold in known_folds(folder)? {
        for name in CHECKPOINTS {
            for (found, kind) in found.iter_mut().zip([Kind::Torch, Kind::Native]) {
                let path = checkpoint_path(folder, &fold, name, kind);
                if path.is_file() {
                    found.push(Checkpoint { fold: fold.clone(), name, path });
                }
            }
        }
    }
    let [torch, native] = found;
    let (list, kind) = match (torch.first(), native.first()) {
        (Some(a), Some(b)) => {
            let cause = format!("it has checkpoints of both kinds, {} and {}", a.path.display(), b.path.display());
            return bad(cause, "Move those away that are not to be converted");
        }
        (Some(_), None) => (torch, Kind::Torch),
        (None, Some(_)) => (native, Kind::Native),
        (None, None) => {
            return bad("no fold has a checkpoint_final or checkpoint_best".into(), "Train it to the end first");
        }
    };
    // The ending is what is looked for; the content decides.
    for checkpoint in &list {
        let file = WeightFile::open(&checkpoint.path)?;
        if Kind::of(&file) != kind {
            let cause = format!("its content is not what .{} files hold", kind.ending());
            return Err(Error::file(&checkpoint.path, cause, "Give it the ending that belongs to it"));
        }
    }
    Ok((list, kind))
}

/// The folds of a folder that nnU-Net would have as well.
fn known_folds(folder: &Path) -> Result<Vec<String>> {
    let mut names = folds(folder)?;
    names.retain(|name| name == "all" || name.parse::<u32>().is_ok());
    Ok(names)
}

/// Refuses an output folder with checkpoints that would not be replaced: they would become folds of the new model.
fn nothing_else(out: &Path, targets: &[PathBuf]) -> Result<()> {
    if !out.is_dir() {
        return Ok(());
    }
    for fold in known_folds(out)? {
        let folder = out.join(format!("fold_{fold}"));
        for entry in std::fs::read_dir(&folder).map_err(Error::io("read", &folder))? {
            let path = entry.map_err(Error::io("read", &folder))?.path();
            let checkpoint = path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("checkpoint_"));
            if checkpoint && !targets.contains(&path) {
                let cause = "it belongs to another model and would become a part of the new one";
                return Err(Error::file(path, cause, "Name another output"));
            }
        }
    }
    Ok(())
}
