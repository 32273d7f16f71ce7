//! Cases of the convolution: odd sizes, one to several channel groups, strides, anisotropy, masks.

use super::{Bias, reference};
use crate::compute::graph::{BlockMask, Graph, Input as Upload, Mask, Precision, TensorId, VoxelLayout, product};
use crate::compute::ops::case::{Case, Input, Setup, f64s, masked, noise, numbered, random_mask, stored, voxel_mask};
use crate::compute::ops::geometry::Geometry;
use crate::compute::ops::loops::Shape;

/// Grid and hidden cells; whether input and output are sparse.
type SparseMask = ([usize; 3], usize, bool, bool);

/// Name, channels of each input and of the output, voxels of the input, geometry, whether there is a bias, mask.
type Row = (&'static str, &'static [usize], usize, [usize; 3], Geometry, bool, Option<SparseMask>);

/// The case of a row; `sample` tells values and mask from those of other samples.
fn conv_case(row: Row, sample: u64, precision: Precision) -> Case {
    let (name, widths, channels, dims, geometry, biased, mask) = row;
    let seed = |n: u64| n + 100 * sample;
    let out_dims = geometry.output(dims);
    let masks: Vec<BlockMask> = mask.iter().map(|m| random_mask(seed(7), m.0, m.1)).collect();
    let space = |dims, sparse: fn(SparseMask) -> bool| match mask.filter(|&m| sparse(m)) {
        Some(m) => VoxelLayout::sparse(dims, Mask::nth(0, m.0), masks[0].count()).expect("blocks are whole voxels"),
        None => VoxelLayout::dense(dims),
    };
    let (in_space, out_space) = (space(dims, |m| m.2), space(out_dims, |m| m.3));
    let (in_mask, out_mask) = (voxel_mask(&in_space, &masks), voxel_mask(&out_space, &masks));
    let input = |(nth, &channels): (u64, &usize)| Input {
        channels,
        space: in_space,
        values: stored(noise(seed(nth), channels * product(dims)), precision),
    };
    let inputs: Vec<Input> = (10..).zip(widths).map(input).collect();
    let width: usize = widths.iter().sum();
    // Cooperative matrices round weights to the precision of features.
    let weight = stored(noise(20, channels * width * geometry.taps()), precision);
    let bias = noise(21, channels);
    let upstream = stored(noise(seed(22), channels * product(out_dims)), precision);

    // The dense masked computation: all voxels, times the mask.
    let x: Vec<f64> = inputs.iter().flat_map(|i| masked(&f64s(&i.values), &in_mask)).collect();
    let (w, b, dy) = (f64s(&weight), f64s(&bias), masked(&f64s(&upstream), &out_mask));
    let shape = Shape { channels: width, dims };
    let y = masked(&reference::conv3d(&x, shape, &w, biased.then_some(&b[..]), channels, geometry), &out_mask);
    let (dx, dw, db) = reference::conv3d_backward(&x, shape, &w, &dy, channels, geometry);
    let mut expected = vec![("y".to_string(), y), ("dc.weight".to_string(), dw)];
    let mut rest = &dx[..];
    for (k, &channels) in widths.iter().enumerate() {
        let (part, others) = rest.split_at(channels * product(dims));
        expected.push((numbered("dx", k), masked(part, &in_mask)));
        rest = others;
    }
    let mut parameters = vec![("c.weight".to_string(), weight)];
    if biased {
        parameters.push(("c.bias".to_string(), bias));
        expected.push(("dc.bias".to_string(), db));
    }
    let kind = if biased { Bias::Trained } else { Bias::None };
    let build = Box::new(move |g: &mut Graph, x: &[TensorId], _: &[Upload]| {
        let (_, input) = g.shape(x[0]);
        vec![g.conv3d(x, "c", channels, out_space.of_samples(input.samples), geometry, kind)]
    });
    Case {
        name: name.to_string(),
        setup: Setup { masks, inputs, parameters, build, images: vec![], upstream: vec![upstream] },
        expected,
        precision,
        // The sum over one part of a concatenation is stored before the next is added to it.
        roundings: widths.len() as u32,
    }
}

const K3: [usize; 3] = [3; 3];

/// Grid and hidden cells of a mask over input and output.
fn sparse(grid: [usize; 3], hidden: usize) -> Option<SparseMask> {
    Some((grid, hidden, true, true))
}

/// Every case, with features of this precision.
pub(in crate::compute::ops) fn cases(precision: Precision) -> Vec<Case> {
    let same = Geometry::same;
    let to_sparse = Some(([2; 3], 5, false, true));
    let to_dense = Some(([6; 3], 100, true, false));
    let rows: [Row; _] = [
        ("conv3d 3x3x3", &[5], 9, [6, 7, 9], same(K3, [1; 3]), true, None),
        ("conv3d 3x3x3, many channels", &[18], 22, [5, 6, 11], same(K3, [1; 3]), false, None),
        ("conv3d 3x3x3, above a thousand voxels", &[8], 16, [9, 12, 11], same(K3, [1; 3]), true, None),
        // More voxels and input channels than one staging of weights serves.
        ("conv3d 3x3x3, many tiles and chunks", &[36], 8, [16; 3], same(K3, [1; 3]), true, None),
        ("sparse conv3d 3x3x3, many tiles", &[36], 8, [16; 3], same(K3, [1; 3]), true, sparse([2; 3], 2)),
        ("conv3d 3x3x3 stride 2", &[6], 7, [7, 8, 9], same(K3, [2; 3]), true, None),
        ("conv3d 1x3x3 stride 1x2x2", &[3], 5, [4, 9, 10], same([1, 3, 3], [1, 2, 2]), true, None),
        ("conv3d 1x1x1", &[9], 6, [4, 5, 6], same([1; 3], [1; 3]), false, None),
        // Most voxels of the input are met by no tap.
        ("conv3d 1x1x1 stride 2", &[5], 6, [9, 8, 10], same([1; 3], [2; 3]), true, None),
        ("conv3d of a concatenation", &[6, 5], 8, [5, 6, 7], same(K3, [1; 3]), true, None),
        ("sparse conv3d 3x3x3", &[8], 12, [12; 3], same(K3, [1; 3]), true, sparse([3; 3], 20)),
        ("sparse conv3d, anisotropic blocks", &[4], 6, [6, 8, 12], same(K3, [1; 3]), true, sparse([3, 2, 3], 9)),
        ("sparse conv3d stride 2", &[6], 8, [12, 8, 8], same(K3, [2; 3]), true, sparse([3, 2, 2], 7)),
        ("sparse conv3d to single voxels", &[6], 8, [6; 3], same(K3, [2; 3]), true, sparse([3; 3], 20)),
        ("conv3d dense to sparse", &[1], 8, [8; 3], same(K3, [1; 3]), true, to_sparse),
        ("conv3d sparse to dense, stride 2", &[6], 8, [6; 3], same(K3, [2; 3]), true, to_dense),
    ];
    let batches: [Row; _] = [
        ("conv3d 3x3x3", &[5], 9, [6, 7, 9], same(K3, [1; 3]), true, None),
        ("conv3d 3x3x3 stride 2", &[6], 7, [8, 7, 9], same(K3, [2; 3]), true, None),
        ("conv3d 1x1x1", &[9], 6, [4, 5, 6], same([1; 3], [1; 3]), false, None),
        ("conv3d of a concatenation", &[6, 5], 8, [5, 6, 7], same(K3, [1; 3]), true, None),
        ("sparse conv3d 3x3x3, many tiles", &[20], 8, [16; 3], same(K3, [1; 3]), true, sparse([2; 3], 2)),
        ("sparse conv3d stride 2", &[6], 8, [12, 8, 8], same(K3, [2; 3]), true, sparse([3, 2, 2], 7)),
        ("conv3d dense to sparse", &[1], 8, [8; 3], same(K3, [1; 3]), true, to_sparse),
        ("conv3d sparse to dense, stride 2", &[6], 8, [6; 3], same(K3, [2; 3]), true, to_dense),
    ];
    let single = rows.map(|row| conv_case(row, 0, precision));
    single.into_iter().chain(batches.map(|row| batch(row, precision))).collect()
}

/// A case of three samples.
fn batch(row: Row, precision: Precision) -> Case {
    Case::batch_of((0..3).map(|sample| conv_case(row, sample, precision)).collect())
}

/// Cases as wide as the deepest stages of a network, so that whole tiles of channels run: for tests of one family of kernels.
pub fn wide(precision: Precision) -> Vec<Case> {
    let same = Geometry::same;
    let rows: [Row; _] = [
        ("wide conv3d 3x3x3, 320 to 64", &[320], 64, [3, 4, 8], same(K3, [1; 3]), false, None),
        ("wide conv3d 1x1x1, 256 to 320", &[256], 320, [4, 4, 8], same([1; 3], [1; 3]), false, None),
        ("wide conv3d 3x3x3 stride 2, 64 to 72", &[64], 72, [6, 8, 16], same(K3, [2; 3]), false, None),
        ("wide conv3d of a concatenation, 64 + 36 to 128", &[64, 36], 128, [4, 4, 8], same(K3, [1; 3]), false, None),
        ("wide sparse conv3d 3x3x3, 64 to 64", &[64], 64, [8; 3], same(K3, [1; 3]), false, sparse([2; 3], 4)),
    ];
    let batches: [Row; _] = [
        ("wide conv3d 3x3x3, 64 to 64", &[64], 64, [3, 4, 8], same(K3, [1; 3]), false, None),
        ("wide conv3d 3x3x3 stride 2, 64 to 72", &[64], 72, [6, 8, 16], same(K3, [2; 3]), false, None),
        ("wide sparse conv3d 3x3x3, 64 to 64", &[64], 64, [16, 8, 8], same(K3, [1; 3]), false, sparse([2, 1, 1], 1)),
    ];
    let single = rows.map(|row| conv_case(row, 0, precision));
    single.into_iter().chain(batches.map(|row| batch(row, precision))).collect()
}

/// The shapes that decide the speed of a real network, by name: forward and backward of 3x3x3 convolutions.
pub fn benchmarks() -> Vec<(String, Setup)> {
    let conv = |channels: usize, size: usize, hidden: f64| {
        let dims = [size; 3];
        let (grid, mut masks, mut space) = ([4; 3], vec![], VoxelLayout::dense(dims));
        if hidden > 0.0 {
            let mask = random_mask(1, grid, (hidden * product(grid) as f64) as usize);
            space = VoxelLayout::sparse(dims, Mask::nth(0, grid), mask.count()).expect("blocks are whole voxels");
            masks.push(mask);
        }
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
