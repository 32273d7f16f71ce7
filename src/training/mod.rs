//! Training: the memory plan of a run, the loop, pre-training, checkpoints, logs, stop signals.

pub mod drive;
pub mod log;
pub mod loss_scale;
pub mod memory;
pub mod patches;
pub mod pretrain;
mod sheet;
pub mod stop;
pub mod task;

pub mod experiment;
pub mod finetune;
