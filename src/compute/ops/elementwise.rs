//! Addition and leaky ReLU of feature tensors of one space.

use super::case::{Case, dense_input, simple_case};
use crate::compute::device::Kernel;
use crate::compute::graph::{Graph, Node, Op, Precision, Recorder, TensorId, VoxelLayoutUniform};

/// y = a + b.
struct Add;

shader_struct! {
    pub(super) struct AddParams is Params of ["elementwise/add"] {
        space: VoxelLayoutUniform,
    }
}

/// y = x > 0 ? x : slope * x (`torch.nn.LeakyReLU`; the gradient at 0 is the slope).
struct LeakyRelu {
    slope: f32,
}

struct LeakyReluGradient {
    slope: f32,
    accumulate: bool,
}

shader_struct! {
    pub(super) struct LeakyReluParams is Params of ["elementwise/leaky_relu", "elementwise/leaky_relu_backward"] {
        space: VoxelLayoutUniform,
        slope: f32,
        accumulate: u32,
        pad: [u32; 2],
    }
}

impl Graph {
    /// a + b, of tensors of one shape.
    pub fn add(&mut self, a: TensorId, b: TensorId) -> TensorId {
        assert_eq!(self.shape(a), self.shape(b), "operands of an addition");
        let (channels, space) = self.shape(a);
        let y = self.feature(channels, space);
        self.push(Add, &[a, b], &[y]);
        y
    }

    /// x where it is positive, else `slope` * x (`torch.nn.LeakyReLU`).
    pub fn leaky_relu(&mut self, x: TensorId, slope: f32) -> TensorId {
        let (channels, space) = self.shape(x);
        let y = self.feature(channels, space);
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
        let (_, space) = r.shape(node.inputs[0]);
        let (a, b, y) = (r.segments(node.inputs[0]), r.segments(node.inputs[1]), r.segments(node.outputs[0]));
        for k in 0..a.len() {
            let params = AddParams { space: space.uniform() };
            let bindings = [r.mask(&[&space]), a[k].slice, b[k].slice, y[k].slice];
            let (workgroups, size) = (r.over(&space, 64, a[k].groups), a[k].slice.size as f64);
            r.dispatch(Kernel::new("elementwise/add"), &params, &bindings, workgroups, r.values(&a[k]), 3.0 * size);
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
        let (_, space) = r.shape(node.inputs[0]);
        for (x, y) in r.segments(node.inputs[0]).into_iter().zip(r.segments(node.outputs[0])) {
            let params = LeakyReluParams { space: space.uniform(), slope: self.slope, accumulate: 0, pad: [0; 2] };
            let (workgroups, size) = (r.over(&space, 64, x.groups), x.slice.size as f64);
            let bindings = [r.mask(&[&space]), x.slice, y.slice];
            r.dispatch(Kernel::new("elementwise/leaky_relu"), &params, &bindings, workgroups, r.values(&x), 2.0 * size);
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
        let (_, space) = r.shape(node.inputs[0]);
        let (x, dy, dx) = (r.segments(node.inputs[0]), r.segments(node.inputs[1]), r.segments(node.outputs[0]));
        for k in 0..x.len() {
            let accumulate = u32::from(self.accumulate);
            let params = LeakyReluParams { space: space.uniform(), slope: self.slope, accumulate, pad: [0; 2] };
            let (workgroups, size) = (r.over(&space, 64, x[k].groups), x[k].slice.size as f64);
            let bindings = [r.mask(&[&space]), x[k].slice, dy[k].slice, dx[k].slice];
            r.dispatch(
                Kernel::new("elementwise/leaky_relu_backward"),
                &params,
                &bindings,
                workgroups,
                r.values(&x[k]),
                3.0 * size,
            );
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
    vec![
        simple_case(
            precision,
            "leaky_relu",
            dense_input(5, [4, 5, 6], 68, precision),
            vec![],
            vec![],
            |g, x| g.leaky_relu(x, 0.01),
            |x| leaky_relu(x, 0.01),
            |x, dy| vec![("dx", leaky_relu_backward(x, dy, 0.01))],
        ),
        simple_case(
            precision,
            "add, both operands the same",
            dense_input(5, [4, 5, 6], 69, precision),
            vec![],
            vec![],
            |g, x| g.add(x, x),
            |x| x.iter().map(|v| 2.0 * v).collect(),
            |_, dy| vec![("dx", dy.iter().map(|v| 2.0 * v).collect())],
        ),
    ]
}
