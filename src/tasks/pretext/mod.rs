//! Pretext tasks: what a network learns without labels.

pub mod mae;
pub mod models_genesis;
pub mod voco;
pub mod volume_fusion;

use serde::{Deserialize, Serialize};

/// Which one a network is pre-trained with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pretext {
    /// Reconstruct hidden blocks.
    #[default]
    Mae,
    /// Restore a distorted patch.
    ModelsGenesis,
    /// Tell how two scans were mixed.
    VolumeFusion,
    /// Tell where crops lie in a patch.
    Voco,
}

impl Pretext {
    pub const ALL: [Self; 4] = [Self::Mae, Self::ModelsGenesis, Self::VolumeFusion, Self::Voco];

    /// As plans spell it.
    pub fn key(self) -> &'static str {
        match self {
            Self::Mae => "mae",
            Self::ModelsGenesis => "models_genesis",
            Self::VolumeFusion => "volume_fusion",
            Self::Voco => "voco",
        }
    }

    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mae => "masked autoencoder",
            Self::ModelsGenesis => "Models Genesis",
            Self::VolumeFusion => "Volume Fusion",
            Self::Voco => "VoCo",
        }
    }

    /// The tables of a plan that belong to this pretext alone.
    pub fn tables(self) -> &'static [&'static str] {
        match self {
            Self::Mae => &["mae", "augment"],
            Self::ModelsGenesis => &["models_genesis"],
            Self::VolumeFusion => &["volume_fusion", "intensities"],
            Self::Voco => &["voco", "intensities"],
        }
    }
}
