//! Training: the memory plan of a run, the loop, pre-training, checkpoints, logs, stop signals.

pub mod checkpoint;
pub mod drive;
pub mod log;
pub mod loss_scale;
pub mod memory;
pub mod patches;
pub mod pretrain;
mod sheet;
pub mod state;
pub mod stop;
pub mod task;

/// The checkpoint that a run goes on from, and that of its best validation, in the run's folder.
pub const LATEST: &str = "checkpoint_latest.safetensors";
pub const BEST: &str = "checkpoint_best.safetensors";
