//! What is done with a trained network: reading its weights, predicting, reconstructing, converting.

pub mod adaptation;
pub mod architecture;
pub mod convert;
pub mod predict;
pub mod reconstruct;
pub mod weights;
