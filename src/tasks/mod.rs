//! What a network can be trained for, and the plans that say so.

pub mod plan;
pub mod pretext;
