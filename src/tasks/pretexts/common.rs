//! What all pretexts are: the interface to plans, training and reconstruction.

use super::masking::Masking;
use crate::base::{Error, Result};
use crate::compute::graph::{Feature, Graph, Input, Mask};
use crate::data::{Patch, PatchSettings, Place};
use crate::tasks::check::listed;
use crate::tasks::train_table::Train;
use crate::tasks::{Frame, Task, plan_table as table};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::Any;

/// A task without labels. A sample is the patches that it is made of.
pub trait Pretext: Task<Sample = Vec<Patch>> + Described {
    /// Refuses settings that make no sense, naming the key, its value and what to do.
    ///
    /// # Errors
    /// The settings do not fit together, or not the network and patch of the frame.
    fn check(&self, frame: &Frame) -> Result<()>;

    /// Outputs of the network.
    fn outputs(&self) -> usize {
        1
    }

    /// Patches of the loader that a sample is made of.
    fn patches(&self) -> usize {
        1
    }

    /// How the loader cuts patches.
    fn patch_settings(&self, frame: &Frame, training: bool) -> PatchSettings {
        let _ = training;
        PatchSettings { patch: frame.patch, augment: None, place: Place::Random }
    }

    /// Patch (z, y, x) for networks that go on from this pre-training, where its own says something about it.
    fn downstream_patch(&self, frame: &Frame) -> Option<[usize; 3]> {
        Some(frame.patch)
    }

    /// Which blocks are hidden, where the pretext hides blocks.
    fn masking(&self) -> Option<Masking> {
        None
    }

    /// The network alone over a plain image, where it fills in hidden blocks; at most `visible` blocks are visible.
    fn reconstruction(&self, frame: &Frame, visible: usize) -> Option<Reconstruction> {
        let _ = (frame, visible);
        None
    }
}

/// What every pretext has by its [`Tables`].
pub trait Described: Any {
    /// As plans spell it.
    fn key(&self) -> &'static str;

    /// As people call it.
    fn name(&self) -> &'static str;

    /// The settings as tables of a plan.
    ///
    /// # Errors
    /// None but mistakes in the program.
    fn table(&self) -> Result<toml::Table>;

    /// A copy of its own.
    fn boxed(&self) -> Box<dyn Pretext>;
}

impl<T: Tables> Described for T {
    fn key(&self) -> &'static str {
        T::KEY
    }

    fn name(&self) -> &'static str {
        T::NAME
    }

    fn table(&self) -> Result<toml::Table> {
        table::of(self)
    }

    fn boxed(&self) -> Box<dyn Pretext> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn Pretext> {
    fn clone(&self) -> Self {
        self.boxed()
    }
}

impl std::fmt::Debug for dyn Pretext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.key())
    }
}

/// The graph of a network that fills in hidden blocks, with its handles.
pub struct Reconstruction {
    /// The nodes.
    pub graph: Graph,
    /// The patch (input channels, z, y, x).
    pub image: Input,
    /// Which blocks are visible.
    pub mask: Mask,
    /// The whole patch as the network has it (output channels, z, y, x).
    pub output: Feature,
}

/// The part of a plan that belongs to one pretext: a struct whose fields are the plan's tables.
pub trait Tables: Pretext + Clone + Default + Serialize + DeserializeOwned + 'static {
    /// As plans spell it.
    const KEY: &'static str;
    /// As people call it.
    const NAME: &'static str;
    /// The names of the tables.
    const TABLES: &'static [&'static str];
    /// Presets of plans that pre-train with it: name, a sentence.
    const PRESETS: &'static [(&'static str, &'static str)];

    /// The settings of presets: of the paper, or `small` for the preset `tiny`.
    fn preset(small: bool) -> Self {
        let _ = small;
        Self::default()
    }

    /// The training of the preset `name`, from that of S3D-B.
    fn train(name: &str, paper: Train) -> Train {
        let _ = name;
        paper
    }
}

/// A pretext in the table of all.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// As plans spell it.
    pub key: &'static str,
    /// The names of its tables in a plan.
    pub tables: &'static [&'static str],
    /// Presets of plans that pre-train with it: name, a sentence.
    pub presets: &'static [(&'static str, &'static str)],
    /// Its settings in a preset: of the paper, or small ones for the preset `tiny`.
    pub preset: fn(bool) -> Box<dyn Pretext>,
    /// The training of its preset of this name, from that of S3D-B.
    pub train: fn(&str, Train) -> Train,
    /// Its settings from its tables of a plan; an error names a key that is unknown, or a value of the wrong type.
    pub parse: fn(toml::Table) -> Result<Box<dyn Pretext>>,
}

impl Entry {
    /// The row of a pretext.
    pub const fn of<T: Tables>() -> Self {
        Self {
            key: T::KEY,
            tables: T::TABLES,
            presets: T::PRESETS,
            preset: |small| Box::new(T::preset(small)),
            train: T::train,
            parse: |tables| Ok(Box::new(table::into::<T>(tables, table::COMPLETE_PLAN)?)),
        }
    }

    /// The pretext that a plan calls `key`.
    ///
    /// # Errors
    /// There is none.
    pub fn find(key: &str) -> Result<&'static Self> {
        super::ALL.iter().find(|entry| entry.key == key).ok_or_else(|| {
            let known = listed(super::ALL.iter().map(|entry| entry.key));
            Error::plan(format!("there is no pretext {key}"), format!("Choose one of {known}"))
        })
    }
}
