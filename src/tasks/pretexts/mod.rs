//! Pretext tasks: what a network learns without labels. A file each, and a line each in the table [`ALL`].
//!
//! A pretext is a [`Task`](crate::tasks::task::Task) whose samples are made of patches, and a part of the plan: its settings are
//! tables of the plan's TOML, by the names of its fields.

pub mod mae;
pub mod models_genesis;
pub mod simmim;
pub mod voco;
pub mod volume_fusion;

mod common;
mod intensities;
pub mod masked_modelling;
pub mod masking;
mod pictures;
mod zero;

pub use common::{Described, Entry, Pretext, Reconstruction, Tables};
pub use masking::Masking;

/// Every pretext; the first is that of a plan that names none.
pub const ALL: &[Entry] = &[
    Entry::of::<mae::Mae>(),
    Entry::of::<models_genesis::ModelsGenesis>(),
    Entry::of::<volume_fusion::VolumeFusion>(),
    Entry::of::<voco::Voco>(),
    Entry::of::<simmim::SimMim>(),
];
