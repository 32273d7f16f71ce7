//! From the visible blocks to a dense tensor: hidden voxels become a learnable mask token, or zero
//! (SparK; paper section "Mask Token").

use super::case::{Case, Input, f64s, noise, random_mask, simple_case, stored, voxel_mask};
use super::channel_sum::channel_sum;
use super::pair::{Pair, PairParams};
use crate::compute::device::Kernel;
use crate::compute::graph::{
    Graph, Mask, Node, Op, Packing, Precision, Recorder, Role, TensorId, VoxelLayout, product,
};

struct Densify {
    token: bool,
}

struct DensifyGradient {
    accumulate: bool,
}

impl Graph {
    /// The dense tensor of a sparse one. With `token`, hidden voxels get the parameter `{token}` of shape (1, C, 1, 1, 1).
    pub fn densify(&mut self, x: TensorId, token: Option<&str>) -> TensorId {
        let (channels, space) = self.shape(x);
        let y = self.feature(channels, VoxelLayout::dense(space.dims));
        let mut inputs = vec![x];
        inputs.extend(
            token.map(|name| self.parameter(name, &[1, channels, 1, 1, 1], Packing::Vector { channels }, Role::Token)),
        );
        self.push(Densify { token: token.is_some() }, &inputs, &[y]);
        y
    }
}

impl Op for Densify {
    fn name(&self) -> &'static str {
        "densify"
    }

    fn recomputation_cost(&self) -> Option<f64> {
        // The visible part is read, at most as much as is written.
        Some(2.0)
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let token = if self.token { r.slice(node.inputs[1]) } else { r.dummy() };
        let kernel = Kernel::new("densify/forward").flag("TOKEN", self.token);
        let (input, output) = (node.inputs[0], node.outputs[0]);
        Pair { kernel, input, output, forward: true, params: PairParams::default(), extra: vec![token], flops: 0.0 }
            .record(r);
    }

    fn backward(&self, node: &Node, g: &mut Graph) {
        let Some(dy) = g.gradient(node.outputs[0]) else { return };
        let x = node.inputs[0];
        if self.token && g.needs_gradient(node.inputs[1]) {
            let token = g.parameter_gradient(node.inputs[1]);
            let (_, visible) = g.shape(x);
            // Where nothing is hidden the token has a gradient, of zero: it decays, as in PyTorch.
            if visible.is_sparse() {
                g.channel_sum(dy, token, Some(visible));
            }
        }
        if g.needs_gradient(x) {
            let (dx, accumulate) = g.gradient_target(x);
            g.push(DensifyGradient { accumulate }, &[dy], &[dx]);
        }
    }
}

impl Op for DensifyGradient {
    fn name(&self) -> &'static str {
        "densify gradient"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let kernel = Kernel::new("densify/backward");
        let (input, output) = (node.outputs[0], node.inputs[0]);
        let params = PairParams { accumulate: u32::from(self.accumulate), ..Default::default() };
        Pair { kernel, input, output, forward: false, params, extra: vec![], flops: 0.0 }.record(r);
    }
}

/// Visible voxels keep x, hidden ones get the token of their channel.
pub fn densify(x: &[f64], mask: &[f64], token: &[f64]) -> Vec<f64> {
    x.iter().enumerate().map(|(k, &v)| if mask[k % mask.len()] > 0.0 { v } else { token[k / mask.len()] }).collect()
}

/// Gradients (dx, dtoken) of [`densify`].
pub fn densify_backward(dy: &[f64], mask: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let dx = dy.iter().enumerate().map(|(k, &d)| d * mask[k % mask.len()]).collect();
    let hidden: Vec<f64> = dy.iter().enumerate().map(|(k, &d)| d * (1.0 - mask[k % mask.len()])).collect();
    (dx, channel_sum(&hidden, mask.len()))
}

/// Every case, with features of this precision.
pub(super) fn cases(precision: Precision) -> Vec<Case> {
    let (mask, dims, channels) = (random_mask(5, [2, 3, 2], 7), [8, 12, 8], 6);
    let space = VoxelLayout::sparse(dims, Mask::nth(0, mask.grid), mask.count()).expect("blocks are whole voxels");
    let visible = voxel_mask(&space, std::slice::from_ref(&mask));
    let visible_backward = visible.clone();
    let token = noise(65, channels);
    let token64 = f64s(&token);
    vec![simple_case(
        precision,
        "densify with a mask token",
        Input { channels, space, values: stored(noise(66, channels * product(dims)), precision) },
        vec![mask],
        vec![("token".into(), token)],
        move |g, x| g.densify(x, Some("token")),
        move |x| densify(x, &visible, &token64),
        move |_, dy| {
            let (dx, dtoken) = densify_backward(dy, &visible_backward);
            vec![("dx", dx), ("dtoken", dtoken)]
        },
    )]
}
