//! Fine-tuning for segmentation: from a pre-trained encoder (or from scratch) and a labelled data set of nnU-Net's form to a model
//! that [`crate::inference::predict`] runs as it is, and nnU-Net after `spark3d convert`.
//!
//! [`setup`] brings data set, checkpoint and plan together; [`transfer`] takes weights over; [`run`] is the whole job; [`describe`] writes the model down in nnU-Net's words.

mod describe;
pub mod run;
pub mod setup;
pub mod transfer;
pub mod validate;
