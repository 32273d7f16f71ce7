//! Applying a network to images larger than its patch.

pub mod window;
