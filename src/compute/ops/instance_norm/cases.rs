//! Cases of the norm: of one tensor and of several, dense and sparse, with what follows it.

use super::reference::Norm;
use super::{EPS, Epilogue};
use crate::compute::ops::prelude::*;

/// What tells one norm from another.
#[derive(Clone, Copy)]
struct NormCase {
    name: &'static str,
    channels: usize,
    dims: [usize; 3],
    /// Grid and hidden cells.
    mask: Option<([usize; 3], usize)>,
    instances: usize,
    /// Tells values and masks from those of other samples.
    sample: u64,
    affine: bool,
    residual: bool,
    slope: Option<f32>,
}

/// An affine norm of one dense tensor.
const PLAIN: NormCase = NormCase {
    name: "instance_norm",
    channels: 5,
    dims: [5, 6, 7],
    mask: None,
    instances: 1,
    sample: 0,
    affine: true,
    residual: false,
    slope: None,
};

/// Every case, with features of this precision.
pub(in crate::compute::ops) fn cases(precision: Precision) -> Vec<Case> {
    let slope = Some(0.01);
    let sparse = NormCase { channels: 6, dims: [8; 3], mask: Some(([2; 3], 6)), ..PLAIN };
    let list = [
        PLAIN,
        NormCase { name: "instance_norm + residual + leaky_relu", channels: 8, residual: true, slope, ..PLAIN },
        NormCase { name: "instance_norm over several chunks", channels: 4, dims: [25, 26, 27], slope, ..PLAIN },
        NormCase { name: "sparse instance_norm", dims: [8, 6, 4], mask: Some(([4, 3, 2], 17)), slope, ..sparse },
        NormCase { name: "sparse instance_norm without affine", affine: false, ..sparse },
        NormCase { name: "sparse batch norm", dims: [8, 6, 8], mask: Some(([4, 3, 2], 15)), instances: 2, ..PLAIN },
    ];
    let batches = [
        NormCase { name: "instance_norm + residual + leaky_relu", channels: 8, residual: true, slope, ..PLAIN },
        NormCase { name: "instance_norm over several chunks", channels: 4, dims: [25, 26, 27], slope, ..PLAIN },
        NormCase { name: "sparse instance_norm", dims: [8, 6, 4], mask: Some(([4, 3, 2], 17)), slope, ..sparse },
    ];
    let batch = |case: NormCase| {
        Case::batch_of((0..3).map(|sample| norm_case(NormCase { sample, ..case }, precision)).collect())
    };
    list.into_iter().map(|case| norm_case(case, precision)).chain(batches.map(batch)).collect()
}

impl NormCase {
    /// The tensors that are normalised, then the residual.
    fn inputs(&self, masks: &[BlockMask], precision: Precision) -> Vec<Input> {
        let space = |i: usize| masks.get(i).map_or(VoxelLayout::dense(self.dims), |m| visible_blocks(self.dims, i, m));
        let instance = |i: usize| {
            let values = noise(30 + 100 * self.sample + i as u64, self.channels * product(self.dims))
                .iter()
                .map(|v| 3.0 * v + 5.0)
                .collect();
            Input { channels: self.channels, space: space(i), values: stored(values, precision) }
        };
        let residual = self.residual.then(|| Input::noise(self.channels, space(0), 40 + 100 * self.sample, precision));
        (0..self.instances).map(instance).chain(residual).collect()
    }
}

fn norm_case(c: NormCase, precision: Precision) -> Case {
    let NormCase { channels, instances, affine, residual, slope, .. } = c;
    let masks: Vec<BlockMask> = c
        .mask
        .iter()
        .flat_map(|m| (0..instances).map(|i| random_mask(3 + 100 * c.sample + i as u64, m.0, m.1)))
        .collect();
    let inputs = c.inputs(&masks, precision);
    let n = channels * product(c.dims);
    let (gamma, beta) = (noise(41, channels), noise(42, channels));
    let upstream: Vec<Vec<f32>> =
        (0..instances).map(|i| stored(noise(43 + 100 * c.sample + i as u64, n), precision)).collect();

    let voxel_masks: Vec<Vec<f64>> = inputs[..instances].iter().map(|i| voxel_mask(&i.space, &masks)).collect();
    let xs: Vec<Vec<f64>> = inputs[..instances].iter().map(|i| f64s(&i.values)).collect();
    let (ones, zeros) = (vec![1.0; channels], vec![0.0; channels]);
    let (gamma64, beta64) = (f64s(&gamma), f64s(&beta));
    let residual64 = residual.then(|| f64s(&inputs[instances].values));
    let norm = Norm {
        xs: &xs,
        masks: &voxel_masks,
        gamma: if affine { &gamma64 } else { &ones },
        beta: if affine { &beta64 } else { &zeros },
        residual: residual64.as_deref(),
        slope: f64::from(slope.unwrap_or(1.0)),
        eps: f64::from(EPS),
    };
    let dys: Vec<Vec<f64>> = upstream.iter().map(|u| f64s(u)).collect();
    let gradient = norm.backward(&dys);
    let all = |base: &'static str, values: Vec<Vec<f64>>| {
        values.into_iter().enumerate().map(move |(k, v)| (numbered(base, k), v))
    };
    let mut expected: Vec<(String, Vec<f64>)> = all("y", norm.forward()).chain(all("dx", gradient.dxs)).collect();
    let mut parameters = Vec::new();
    if affine {
        parameters = vec![("n.weight".to_string(), gamma), ("n.bias".to_string(), beta)];
        expected.push(("dn.weight".into(), gradient.dgamma));
        expected.push(("dn.bias".into(), gradient.dbeta));
    }
    if residual {
        expected.push((numbered("dx", instances), gradient.dresidual));
    }
    let setup = Setup::new(inputs, move |g, x, _| {
        let epilogue = Epilogue { residual: residual.then(|| x[instances]), slope };
        g.joint_norm(&x[..instances], affine.then_some("n"), epilogue)
    });
    let setup = Setup { masks, parameters, upstream, ..setup };
    // The gradient behind the activation is stored before that of the input is made of it.
    Case { roundings: 2, ..Case::new(c.name, precision, setup, expected) }
}
