//! Addition and leaky ReLU of feature tensors of one space.

use super::prelude::*;

/// y = a + b.
struct Add;

/// y = x > 0 ? x : slope * x (`torch.nn.LeakyReLU`; the gradient at 0 is the slope).
struct LeakyRelu {
    slope: f32,
}

struct LeakyReluGradient {
    slope: f32,
    accumulate: bool,
}

shader_struct! {
    struct Params is Params of ["elementwise/add", "elementwise/leaky_relu", "elementwise/leaky_relu_backward"] {
        space: VoxelLayoutUniform,
        slope: f32,
        accumulate: u32,
        pad: [u32; 2],
    }
}

impl Params {
    fn new(space: VoxelLayout, slope: f32, accumulate: bool) -> Self {
        Self { space: space.uniform(), slope, accumulate: u32::from(accumulate), pad: [0; 2] }
    }
}

impl Graph {
    /// a + b, of tensors of one shape.
    pub fn add(&mut self, a: TensorId, b: TensorId) -> TensorId {
        assert_eq!(self.shape(a), self.shape(b), "operands of an addition");
        let y = self.feature_like(a);
        self.push(Add, &[a, b], &[y]);
        y
    }

    /// x where it is positive, else `slope` * x (`torch.nn.LeakyReLU`).
    pub fn leaky_relu(&mut self, x: TensorId, slope: f32) -> TensorId {
        let y = self.feature_like(x);
        self.push(LeakyRelu { slope }, &[x], &[y]);
        y
    }

    /// Hands `gradient` to `t`: it becomes its gradient, or is added to the one that is there.
    pub(super) fn give_gradient(&mut self, t: TensorId, gradient: TensorId) {
        match self.gradient(t) {
            None => self.adopt_gradient(t, gradient),
            Some(existing) => self.push(Add, &[existing, gradient], &[existing]),
        }
    }
}

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        for s in aligned(r, [node.inputs[0], node.inputs[1], node.outputs[0]]) {
            let ([a, b, y], params) = (s.slices, Params::new(s.space, 1.0, false));
            s.each_voxel(r, Kernel::new("elementwise/add"), &params, &[s.mask, a, b, y], s.values, 3.0 * s.bytes);
        }
    }

    fn backward(&self, node: &Node, g: &mut Graph) {
        let Some(dy) = g.gradient(node.outputs[0]) else { return };
        // Each operand needs a buffer of its own, as later nodes add to them: a copy is an addition to zero-free memory.
        let wanted: Vec<TensorId> = node.inputs.iter().copied().filter(|&t| g.needs_gradient(t)).collect();
        for (k, &t) in wanted.iter().enumerate() {
            if k + 1 == wanted.len() {
                g.give_gradient(t, dy);
            } else {
                let (dx, accumulate) = g.gradient_target(t);
                g.push(LeakyReluGradient { slope: 1.0, accumulate }, &[dy, dy], &[dx]);
            }
        }
    }
}

impl Op for LeakyRelu {
    fn name(&self) -> &'static str {
        "leaky_relu"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        for s in aligned(r, [node.inputs[0], node.outputs[0]]) {
            let ([x, y], params) = (s.slices, Params::new(s.space, self.slope, false));
            s.each_voxel(r, Kernel::new("elementwise/leaky_relu"), &params, &[s.mask, x, y], s.values, 2.0 * s.bytes);
        }
    }

    fn backward(&self, node: &Node, g: &mut Graph) {
        let Some(dy) = g.gradient(node.outputs[0]) else { return };
        let x = g.saved(node.inputs[0]);
        let (dx, accumulate) = g.gradient_target(node.inputs[0]);
        g.push(LeakyReluGradient { slope: self.slope, accumulate }, &[x, dy], &[dx]);
    }
}

impl Op for LeakyReluGradient {
    fn name(&self) -> &'static str {
        "leaky_relu gradient"
    }

    fn record(&self, node: &Node, r: &mut Recorder) {
        let kernel = Kernel::new("elementwise/leaky_relu_backward");
        for s in aligned(r, [node.inputs[0], node.inputs[1], node.outputs[0]]) {
            let ([x, dy, dx], params) = (s.slices, Params::new(s.space, self.slope, self.accumulate));
            s.each_voxel(r, kernel.clone(), &params, &[s.mask, x, dy, dx], s.values, 3.0 * s.bytes);
        }
    }
}

/// x where it is positive, else `slope` * x.
pub fn leaky_relu(x: &[f64], slope: f64) -> Vec<f64> {
    x.iter().map(|&v| if v > 0.0 { v } else { slope * v }).collect()
}

/// dx of [`leaky_relu`].
pub fn leaky_relu_backward(x: &[f64], dy: &[f64], slope: f64) -> Vec<f64> {
    x.iter().zip(dy).map(|(&v, &d)| if v > 0.0 { d } else { slope * d }).collect()
}

/// Every case, with features of this precision.
pub(super) fn cases(precision: Precision) -> Vec<Case> {
    let case =
        |name, seed| SimpleCase::new(name, precision, Input::noise(5, VoxelLayout::dense([4, 5, 6]), seed, precision));
    let twice = |values: &[f64]| values.iter().map(|v| 2.0 * v).collect::<Vec<f64>>();
    vec![
        case("leaky_relu", 68).of(
            |g, x| g.leaky_relu(x, 0.01),
            |x| leaky_relu(x, 0.01),
            |x, dy| vec![("dx", leaky_relu_backward(x, dy, 0.01))],
        ),
        case("add, both operands the same", 69).of(|g, x| g.add(x, x), twice, |_, dy| vec![("dx", twice(dy))]),
    ]
}
