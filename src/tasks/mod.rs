//! What a network can be trained for, and the plans that say so.
//!
//! A [`Task`] is all that a training must know of what is trained: the graphs, how samples are fed to them, how the
//! loss is weighted, what a validation says and shows. [`pretexts`] are the tasks without labels, a file each and one table of
//! them; [`segmentation`] is the task of fine-tuning. [`augmentation`] hands patches of the data side to the compute side.
//! [`plan`] holds the numbers of a run.

pub mod augmentation;
pub mod check;
mod frame;
pub mod plan;
mod plan_table;
pub mod pretexts;
pub mod schedule;
pub mod segmentation;
pub mod task;
pub mod train_table;

pub use plan::Plan;
pub use schedule::{Hyperparameters, Phase, Rate, Schedule, Trains};
pub use task::{Binding, Counts, Frame, GraphMode, Measured, Past, Program, Task, ValidationResult, finish};
