//! Scores of label maps, results of many runs, their comparison, and pictures.

pub mod compare;
pub mod evaluate;
pub mod metric;
pub mod pictures;
pub mod results;
