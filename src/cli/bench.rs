//! `spark3d bench`
use super::Common;
use crate::error::Result;
use clap::Args;

/// Time operators and training steps on the chosen adapter
#[derive(Args)]
pub struct Bench {}

impl Bench {
    pub fn run(&self, _common: &Common) -> Result<()> {
        Ok(())
    }
}
