//! What every operator is written with: the graph and its recorder, kernels and their workgroups, segments of feature tensors, and what
//! cases are made of. Two things have the same name: `Input` is that of a case, and `Upload` the graph's.

pub(super) use super::case::*;
pub(super) use super::segments::{Aligned, CHUNK, Count, aligned};
pub(super) use crate::base::Result;
pub(super) use crate::compute::device::{Gpu, Kernel, Slice, Workgroups};
pub(super) use crate::compute::graph::{
    BlockMask, GROUP, GROUP_BYTES, Graph, Input as Upload, Node, Op, Output, Packing, Parameters, Precision, Recorder,
    Role, Session, TensorId, VoxelLayout, VoxelLayoutUniform, product,
};
pub(super) use std::rc::Rc;
