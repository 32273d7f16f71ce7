//! Cases of the convolution: odd sizes, one to several channel groups, strides, anisotropy, masks.

use super::{Bias, reference};
use crate::compute::graph::{BlockMask, Graph, Input as Upload, Mask, Precision, TensorId, VoxelLayout, product};
use crate::compute::ops::case::{Case, Input, Setup, f64s, masked, noise, random_mask, stored, voxel_mask};
use crate::compute::ops::geometry::Geometry;
use crate::compute::ops::loops::Shape;

struct ConvCase {
    name: &'static str,
    inputs: Vec<usize>,
    channels: usize,
    dims: [usize; 3],
    geometry: Geometry,
    bias: bool,
    /// Grid and hidden cells; whether input and output are sparse.
    mask: Option<([usize; 3], usize, bool, bool)>,
}

fn conv_case(c: ConvCase, precision: Precision) -> Case {
    let out_dims = c.geometry.output(c.dims);
    let masks: Vec<BlockMask> = c.mask.iter().map(|m| random_mask(7, m.0, m.1)).collect();
    let space = |dims, sparse: bool| match (&c.mask, sparse) {
        (Some(m), true) => {
            VoxelLayout::sparse(dims, Mask::nth(0, m.0), masks[0].count()).expect("blocks are whole voxels")
        }
        _ => VoxelLayout::dense(dims),
    };
    let (in_space, out_space) =
        (space(c.dims, c.mask.is_some_and(|m| m.2)), space(out_dims, c.mask.is_some_and(|m| m.3)));
    let (in_mask, out_mask) = (voxel_mask(&in_space, &masks), voxel_mask(&out_space, &masks));
    let inputs: Vec<Input> = c
        .inputs
        .iter()
        .enumerate()
        .map(|(k, &channels)| Input {
            channels,
            space: in_space,
            values: stored(noise(10 + k as u64, channels * product(c.dims)), precision),
        })
        .collect();
    let width: usize = c.inputs.iter().sum();
    // Cooperative matrices round weights to the precision of features.
    let weight = stored(noise(20, c.channels * width * c.geometry.taps()), precision);
    let bias = noise(21, c.channels);
    let upstream = stored(noise(22, c.channels * product(out_dims)), precision);

    // The dense masked computation: all voxels, times the mask.
    let x: Vec<f64> = inputs.iter().flat_map(|i| masked(&f64s(&i.values), &in_mask)).collect();
    let (w, b, dy) = (f64s(&weight), f64s(&bias), masked(&f64s(&upstream), &out_mask));
    let shape = Shape { channels: width, dims: c.dims };
    let y = masked(&reference::conv3d(&x, shape, &w, c.bias.then_some(&b[..]), c.channels, c.geometry), &out_mask);
    let (dx, dw, db) = reference::conv3d_backward(&x, shape, &w, &dy, c.channels, c.geometry);
    let mut expected = vec![("y".to_string(), y), ("dc.weight".to_string(), dw)];
    let mut first = 0;
    for (k, &channels) in c.inputs.iter().enumerate() {
        let part = &dx[first..first + channels * product(c.dims)];
        expected.push((if k == 0 { "dx".into() } else { format!("dx{k}") }, masked(part, &in_mask)));
        first += part.len();
    }
    let mut parameters = vec![("c.weight".to_string(), weight)];
    if c.bias {
        parameters.push(("c.bias".to_string(), bias));
        expected.push(("dc.bias".to_string(), db));
    }
    let (channels, geometry) = (c.channels, c.geometry);
    let kind = if c.bias { Bias::Trained } else { Bias::None };
    let build = Box::new(move |g: &mut Graph, x: &[TensorId], _: &[Upload]| {
        vec![g.conv3d(x, "c", channels, out_space, geometry, kind)]
    });
    Case {
        name: c.name.to_string(),
        setup: Setup { masks, inputs, parameters, build, images: vec![], upstream: vec![upstream] },
        expected,
        precision,
        // The sum over one part of a concatenation is stored before the next is added to it.
        roundings: c.inputs.len() as u32,
    }
}

const K3: [usize; 3] = [3; 3];

/// Grid and hidden cells of a mask over input and output.
fn sparse(grid: [usize; 3], hidden: usize) -> Option<([usize; 3], usize, bool, bool)> {
    Some((grid, hidden, true, true))
}

/// Every case, with features of this precision.
pub(in crate::compute::ops) fn cases(precision: Precision) -> Vec<Case> {
    let same = Geometry::same;
    let conv = |name, inputs: &[usize], channels, dims, geometry, bias, mask| {
        conv_case(ConvCase { name, inputs: inputs.to_vec(), channels, dims, geometry, bias, mask }, precision)
    };
    let to_sparse = Some(([2; 3], 5, false, true));
    let to_dense = Some(([6; 3], 100, true, false));
    vec![
        conv("conv3d 3x3x3", &[5], 9, [6, 7, 9], same(K3, [1; 3]), true, None),
        conv("conv3d 3x3x3, many channels", &[18], 22, [5, 6, 11], same(K3, [1; 3]), false, None),
        conv("conv3d 3x3x3, above a thousand voxels", &[8], 16, [9, 12, 11], same(K3, [1; 3]), true, None),
        // More voxels and input channels than one staging of weights serves.
        conv("conv3d 3x3x3, many tiles and chunks", &[36], 8, [16; 3], same(K3, [1; 3]), true, None),
        conv("sparse conv3d 3x3x3, many tiles", &[36], 8, [16; 3], same(K3, [1; 3]), true, sparse([2; 3], 2)),
        conv("conv3d 3x3x3 stride 2", &[6], 7, [7, 8, 9], same(K3, [2; 3]), true, None),
        conv("conv3d 1x3x3 stride 1x2x2", &[3], 5, [4, 9, 10], same([1, 3, 3], [1, 2, 2]), true, None),
        conv("conv3d 1x1x1", &[9], 6, [4, 5, 6], same([1; 3], [1; 3]), false, None),
        // Most voxels of the input are met by no tap.
        conv("conv3d 1x1x1 stride 2", &[5], 6, [9, 8, 10], same([1; 3], [2; 3]), true, None),
        conv("conv3d of a concatenation", &[6, 5], 8, [5, 6, 7], same(K3, [1; 3]), true, None),
        conv("sparse conv3d 3x3x3", &[8], 12, [12; 3], same(K3, [1; 3]), true, sparse([3; 3], 20)),
        conv("sparse conv3d, anisotropic blocks", &[4], 6, [6, 8, 12], same(K3, [1; 3]), true, sparse([3, 2, 3], 9)),
        conv("sparse conv3d stride 2", &[6], 8, [12, 8, 8], same(K3, [2; 3]), true, sparse([3, 2, 2], 7)),
        conv("sparse conv3d to single voxels", &[6], 8, [6; 3], same(K3, [2; 3]), true, sparse([3; 3], 20)),
        conv("conv3d dense to sparse", &[1], 8, [8; 3], same(K3, [1; 3]), true, to_sparse),
        conv("conv3d sparse to dense, stride 2", &[6], 8, [6; 3], same(K3, [2; 3]), true, to_dense),
    ]
}

/// Cases as wide as the deepest stages of a network, so that whole tiles of channels run: for tests of one family of kernels.
pub fn wide(precision: Precision) -> Vec<Case> {
    let same = Geometry::same;
    let conv = |name, inputs: &[usize], channels, dims, geometry, mask| {
        conv_case(ConvCase { name, inputs: inputs.to_vec(), channels, dims, geometry, bias: false, mask }, precision)
    };
    vec![
        conv("wide conv3d 3x3x3, 320 to 64", &[320], 64, [3, 4, 8], same(K3, [1; 3]), None),
        conv("wide conv3d 1x1x1, 256 to 320", &[256], 320, [4, 4, 8], same([1; 3], [1; 3]), None),
        conv("wide conv3d 3x3x3 stride 2, 64 to 72", &[64], 72, [6, 8, 16], same(K3, [2; 3]), None),
        conv("wide conv3d of a concatenation, 64 + 36 to 128", &[64, 36], 128, [4, 4, 8], same(K3, [1; 3]), None),
        conv("wide sparse conv3d 3x3x3, 64 to 64", &[64], 64, [8; 3], same(K3, [1; 3]), sparse([2; 3], 4)),
    ]
}

/// The shapes that decide the speed of a real network, by name: forward and backward of 3x3x3 convolutions.
pub fn benchmarks() -> Vec<(String, Setup)> {
    let conv = |channels: usize, size: usize, hidden: f64| {
        let dims = [size; 3];
        let (masks, space) = if hidden > 0.0 {
            let grid = [4; 3];
            let mask = random_mask(1, grid, (hidden * product(grid) as f64) as usize);
            let space = VoxelLayout::sparse(dims, Mask::nth(0, grid), mask.count()).expect("blocks are whole voxels");
            (vec![mask], space)
        } else {
            (vec![], VoxelLayout::dense(dims))
        };
        let n = channels * product(dims);
        let setup = Setup {
            masks,
            inputs: vec![Input { channels, space, values: noise(1, n) }],
            parameters: vec![("c.weight".into(), noise(2, channels * channels * 27))],
            build: Box::new(move |g, x, _| {
                vec![g.conv3d(x, "c", channels, space, Geometry::same([3; 3], [1; 3]), Bias::None)]
            }),
            images: vec![],
            upstream: vec![noise(3, n)],
        };
        let mask = if hidden > 0.0 { format!(", {:.0} % masked", 100.0 * hidden) } else { String::new() };
        (format!("conv3d {channels} -> {channels} @ {size}^3{mask}"), setup)
    };
    vec![conv(32, 64, 0.0), conv(128, 24, 0.0), conv(320, 10, 0.0), conv(8, 64, 0.0), conv(32, 64, 0.75)]
}
