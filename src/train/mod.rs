//! Training: the memory plan of a run, the pre-training loop, checkpoints, logs, stop signals.

pub mod checkpoint;
pub mod log;
pub mod memory;
pub mod pretrain;
pub mod stop;
