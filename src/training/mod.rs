//! Training: the memory plan of a run, the loop, pre-training, checkpoints, logs, stop signals.

pub mod log;
pub mod loss_scale;
pub mod memory;
pub mod pretrain;
pub mod stop;
pub mod train_loop;
pub mod trainer;

pub mod experiment;
pub mod finetune;

pub use log::{MetricsLog, run_json, utc};
pub use stop::{StopFlag, StopSignal};
pub use train_loop::{Batches, Run, past_of, train};
pub use trainer::{StepResult, Trainer, validation_key};
