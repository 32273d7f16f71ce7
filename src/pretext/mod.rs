//! Pretext tasks: what a network learns without labels.

pub mod mae;
pub mod voco;
