//! From the visible blocks to a dense tensor: hidden voxels become a learnable mask token, or zero
//! (SparK; paper section "Mask Token").

use super::channel_sum::channel_sum;
use super::pair::{Pair, PairParams};
use super::prelude::*;

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
        let y = self.feature(channels, space.dense_like(space.dims));
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
        let params = PairParams::default();
        Pair { kernel, forward: true, params, extra: Some(token), flops: 0.0 }.record(node, r);
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
        let params = PairParams { accumulate: u32::from(self.accumulate), ..Default::default() };
        Pair { kernel, forward: false, params, extra: None, flops: 0.0 }.record(node, r);
    }
}

/// Visible voxels keep x, hidden ones get the token of their channel.
pub fn densify(x: &[f64], mask: &[f64], token: &[f64]) -> Vec<f64> {
    x.iter().enumerate().map(|(k, &v)| if mask[k % mask.len()] > 0.0 { v } else { token[k / mask.len()] }).collect()
}

/// Gradients (dx, dtoken) of [`densify`].
pub fn densify_backward(dy: &[f64], mask: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let hidden: Vec<f64> = mask.iter().map(|m| 1.0 - m).collect();
    (masked(dy, mask), channel_sum(&masked(dy, &hidden), mask.len()))
}

/// Every case, with features of this precision.
pub(super) fn cases(precision: Precision) -> Vec<Case> {
    let sample = |n| densify_case(n, precision);
    vec![sample(0), Case::batch_of(vec![sample(0), sample(1)])]
}

fn densify_case(sample: u64, precision: Precision) -> Case {
    let (mask, dims, channels) = (random_mask(5 + sample, [2, 3, 2], 7), [8, 12, 8], 6);
    let space = visible_blocks(dims, 0, &mask);
    let visible = voxel_mask(&space, std::slice::from_ref(&mask));
    let token = noise(65, channels);
    let token64 = f64s(&token);
    let case = SimpleCase::new(
        "densify with a mask token",
        precision,
        Input::noise(channels, space, 66 + 100 * sample, precision),
    );
    SimpleCase { masks: vec![mask], parameters: vec![("token".into(), token)], ..case }.of(
        |g, x| g.densify(x, Some("token")),
        |x| densify(x, &visible, &token64),
        |_, dy| {
            let (dx, dtoken) = densify_backward(dy, &visible);
            vec![("dx", dx), ("dtoken", dtoken)]
        },
    )
}
