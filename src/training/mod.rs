//! Training: the memory plan of a run, the loop, pre-training, checkpoints, logs, stop signals.

pub mod claim;
pub mod loaded;
pub mod log;
pub mod loss_scale;
pub mod memory;
pub mod pretrain;
pub mod stop;
pub mod train_loop;
pub mod trainer;

pub mod experiment;
pub mod finetune;

pub use claim::Claim;
pub use log::{MetricsLog, run_json, utc};
pub use stop::StopFlag;
pub use train_loop::{Batches, Run, past_of, train};
pub use trainer::{StepResult, Trainer, validation_key};

use crate::base::Mode;

/// What the command line says of how work is done; nothing here changes a result.
#[derive(Clone, Copy)]
pub struct Host {
    /// Threads that read patches.
    pub threads: usize,
    /// Bytes on the device.
    pub memory: Option<u64>,
    /// How progress is shown.
    pub progress: Mode,
    /// Whether only errors are shown.
    pub quiet: bool,
}
