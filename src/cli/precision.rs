//! The option `--precision` of trainings.

use crate::base::{Error, Result};
use crate::compute::device::Gpu;
use crate::compute::graph::Precision;
use crate::compute::model::suited_precision;
use crate::tasks::plan::gives;
use std::path::Path;
use std::rc::Rc;

/// The key of a plan.
const KEY: &str = "train.precision";

/// How features are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// As the run has them that is resumed; in a new one in 16 bits where the adapter multiplies matrices of them, else in 32
    Auto,
    /// In 32 bits
    F32,
    /// In 16 bits
    F16,
}

/// What a command line says of the precision.
pub struct Wanted {
    /// Whether the adapter decides.
    is_auto: bool,
}

impl Wanted {
    /// Adds a choice to the `set` of a plan that `file` changes as well. Where nobody says anything, the adapter decides.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn new(choice: Option<Choice>, file: Option<&Path>, set: &mut Vec<String>) -> Result<Self> {
        let is_auto = match choice {
            Some(choice) => choice == Choice::Auto,
            None => !gives(KEY, file, set)?,
        };
        match choice {
            Some(Choice::F32) => set.push(format!("{KEY}=f32")),
            Some(Choice::F16) => set.push(format!("{KEY}=f16")),
            Some(Choice::Auto) | None => {}
        }
        Ok(Self { is_auto })
    }

    /// Sets the precision of a plan where the adapter decides, for the folder of a run that may have begun.
    ///
    /// # Errors
    /// The run's plan cannot be read, or the device fails.
    pub fn settle(&self, precision: &mut Precision, run: Option<&Path>, gpu: &Rc<Gpu>) -> Result<()> {
        if self.is_auto {
            *precision = recorded(run)?.map_or_else(|| suited_precision(gpu), Ok)?;
        }
        Ok(())
    }
}

/// The precision of a run that has begun.
fn recorded(run: Option<&Path>) -> Result<Option<Precision>> {
    let Some(file) = run.map(|run| run.join("plan.toml")).filter(|file| file.exists()) else { return Ok(None) };
    let text = std::fs::read_to_string(&file).map_err(Error::io("read", &file))?;
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
        Error::file(&file, e.to_string().trim(), "Restore it, or choose another run folder")
    })?;
    let named = table.get("train").and_then(|train| train.get("precision")).and_then(toml::Value::as_str);
    // Plans of the first versions had 32 bits without saying so.
    Ok(Some(named.and_then(|name| name.parse().ok()).unwrap_or_default()))
}
