//! Fine-tuning for segmentation: a pre-trained encoder, a labelled data set, a network that nnU-Net users can use.

pub mod network;
pub mod trainer;
